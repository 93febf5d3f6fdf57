"""Paths that users write in settings: `~` is expanded, relative ones start at the current directory."""

from pathlib import Path

from incasem.errors import ConfigError, did_you_mean, explain


def existing_file(given: str | Path, setting: str) -> Path:
    """Return ``given`` as the absolute path of an existing file.

    Raises:
        ConfigError: there is no such file; the message says where was looked, and what lies there.
    """
    path = Path(given).expanduser().absolute()
    if path.is_file():
        return path
    if path.is_dir():
        raise ConfigError(explain(setting, given, "a file", f"{path} is a folder; name a file in it"))
    raise ConfigError(explain(setting, given, "an existing file", _where_it_ends(path, Path(given))))


def _where_it_ends(path: Path, given: Path) -> str:
    looked = f"Looked for {path}"
    if not given.expanduser().is_absolute():
        looked += f" (relative paths start at the current folder, {Path.cwd()})"
    existing = next((parent for parent in path.parents if parent.is_dir()), path.parent)
    if existing != path.parent:
        return f"{looked}; there is no folder {existing / path.relative_to(existing).parts[0]}"
    neighbours = [other.name for other in existing.iterdir() if other.suffix == path.suffix]
    hint = did_you_mean(path.name, neighbours)
    if not hint and neighbours:
        hint = f" There are: {', '.join(sorted(neighbours)[:5])}."
    return f"{looked}.{hint}" if hint else looked


def data_config_path(given: str | None, setting: str) -> Path:
    """Return the data-configuration file that the setting (``training.data`` …) names.

    Raises:
        ConfigError: the setting is empty, or there is no such file.
    """
    if given is None:
        raise ConfigError(
            explain(setting, "not set", "the path of a data configuration (JSON)",
                    f"Add {setting}=data_configs/example.json to the command, or set it in the YAML file")
        )  # fmt: skip
    return existing_file(given, setting)
