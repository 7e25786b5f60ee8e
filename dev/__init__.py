"""Programs for contributors: the demo, the playground, and the Airflow that they and the live tests start."""
