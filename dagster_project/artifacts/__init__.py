"""The store of artifacts, their manifests and lineage. Knows nothing of experiments or of Dagster."""

from dagster_project.artifacts.manifest import InputEntry, Manifest
from dagster_project.artifacts.refs import Ref
from dagster_project.artifacts.store import Artifact, ArtifactStore, Draft, Location, MissingArtifactError

__all__ = ["Artifact", "ArtifactStore", "Draft", "InputEntry", "Location", "Manifest", "MissingArtifactError", "Ref"]
