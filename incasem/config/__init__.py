"""Settings: YAML and JSON files, command-line overrides, and their checks."""
