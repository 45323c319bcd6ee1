"""Every name from Dagster's private modules that this project uses, each module with its reason.

No other module of the project imports from `dagster._…`. These names may change in any release of Dagster, so this is
the place to look when a new release breaks something. `import dagster` loads the names below anyway. The other modules
of the package load more, and are imported where they are needed.
"""

from dagster._core.errors import DagsterPipesExecutionError  # what `PipesSubprocessClient` raises
from dagster._core.events import StepMaterializationData  # events of materialisations, stored in batches
from dagster._core.instance.ref import InstanceRef  # an instance with other settings than its file has
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import (  # tags that Dagster sets and reads
    PARTITION_NAME_TAG,
    PRIORITY_TAG,
    WILL_RETRY_TAG,
)
from dagster._utils.interrupts import setup_interrupt_handlers  # Ctrl-C and SIGTERM as Dagster's commands take them

__all__ = [
    "NOT_FINISHED_STATUSES",
    "PARTITION_NAME_TAG",
    "PRIORITY_TAG",
    "WILL_RETRY_TAG",
    "DagsterPipesExecutionError",
    "InstanceRef",
    "StepMaterializationData",
    "setup_interrupt_handlers",
]
