"""A data set through `datasets.load_dataset`."""

from collections.abc import Iterator
from itertools import islice

from ablations.lm.texts.raw import RawDocument
from ablations.study.contracts.lm import DatasetText
from ablations.study.errors import UserError


def dataset_documents(source: DatasetText) -> Iterator[RawDocument]:
    """One document per row.

    Rows are streamed, so that the first few hundred of a large data set cost no more than they are.

    Raises:
        UserError: `datasets` is not installed, the data set cannot be loaded, or lacks the column.
    """
    try:
        import datasets
    except ModuleNotFoundError:
        raise UserError("texts with 'source: dataset' need the extra ablations[hub]; install it") from None
    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(
            source.name,
            source.config,
            data_files=source.data_files,
            split=source.hub_split,
            revision=source.revision,
            streaming=True,
        )
        for number, row in enumerate(islice(rows, source.documents)):
            if not isinstance(row.get(source.text), str):
                raise UserError(
                    f"data set '{source.name}' has no text in column '{source.text}'"
                    f" (columns: {sorted(row)}); correct the key 'text'"
                )
            yield RawDocument(f"{source.hub_split}:{number}", "row", row[source.text])
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"data set '{source.name}' cannot be read: {reason[:300]};"
            " correct the keys 'name', 'config', 'data_files' and 'hub_split', or check the network"
        ) from None
