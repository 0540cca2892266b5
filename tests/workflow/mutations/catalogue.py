"""Every mutation."""

from tests.workflow.mutations.configuration import CONFIGURATION
from tests.workflow.mutations.files import FILES
from tests.workflow.mutations.sources import SOURCES
from tests.workflow.mutations.wording import WORDING

MUTATIONS = [*CONFIGURATION, *WORDING, *FILES, *SOURCES]
