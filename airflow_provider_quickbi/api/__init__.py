"""Quick BI without Airflow: a client for its OpenAPI that any Python program can use."""
