"""recipes: runs as TOML files, and the script that makes the starter model."""
