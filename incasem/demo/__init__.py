"""The demo: the main job on a generated cell, by the commands that a user would type."""
