"""Behind the command line: what is checked before the first DAG, the recordings, and their replay."""
