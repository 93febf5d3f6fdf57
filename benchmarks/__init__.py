"""Speed, memory and quality, each against a plain version measured in the same run."""
