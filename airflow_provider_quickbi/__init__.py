"""Apache Airflow provider for Alibaba Cloud Quick BI."""

__version__ = "1.0.0"
