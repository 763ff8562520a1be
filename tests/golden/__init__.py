"""Numbers and names that a refactor must not change; see README.md."""
