"""Names of the files that results are in."""

WAREHOUSE = "warehouse.duckdb"
