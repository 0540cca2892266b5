"""Wordings of retrieval prompts; those of training, validation and held-out prompts have nothing in common.

The first held-out passkey is that of Mohtashami and Jaggi (2023, arXiv 2305.16300, section 4.2).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ablations.specs.lm import Split
from ablations.specs.sdtp.retrieval import RetrievalKind


@dataclass(frozen=True)
class Wording:
    """One way to state a fact and to ask for it; `{key}` and `{value}` stand for the fact.

    Attributes:
        fact: Line that states it.
        cue: End of the prompt, which asks for the value; the value follows at once.
        opening: Beginning of the prompt.
        heading: Line before the facts, if they have one.
    """

    fact: str
    cue: str
    opening: str = ""
    heading: str = ""


@dataclass(frozen=True)
class Wordings:
    """Wordings of one kind of prompt in one split.

    Attributes:
        forms: The wordings, each with every key.
        keys: What values belong to.
        facts: Facts side by side, of which one is asked for.
    """

    forms: tuple[Wording, ...]
    keys: tuple[str, ...]
    facts: int


_NUMBERS: Mapping[Split, tuple[str, ...]] = {
    "train": (
        "access code",
        "secret number",
        "ticket number",
        "alarm code",
        "order number",
        "room code",
        "member number",
        "lottery number",
    ),
    "validation": ("locker code", "booking number", "badge number"),
    "heldout": ("pass key", "door code", "account number", "magic number", "parcel number"),
}
_THINGS: Mapping[Split, tuple[str, ...]] = {
    "train": ("apple", "bread", "candle", "desk", "engine", "flute", "glove", "hammer", "island", "jacket"),
    "validation": ("kettle", "lemon", "mirror", "needle", "orange", "piano"),
    "heldout": ("river", "saddle", "table", "umbrella", "violin", "window", "yacht", "zebra"),
}
_NAMES: Mapping[Split, tuple[str, ...]] = {
    "train": (
        "retry_limit",
        "buffer_size",
        "max_depth",
        "chunk_bytes",
        "poll_delay",
        "page_count",
        "user_quota",
        "port_number",
    ),
    "validation": ("cache_slots", "batch_total", "line_budget", "node_weight"),
    "heldout": ("queue_length", "grid_width", "seed_value", "token_price", "frame_rate", "row_offset"),
}

_PASSKEY: Mapping[Split, tuple[Wording, ...]] = {
    "train": (
        Wording("The {key} is {value}. Do not forget it.\n", "\n\nDo you recall the {key}? It is "),
        Wording("Note that the {key} is {value}.\n", "\n\nThe {key} is "),
        Wording("{value} is the {key}. Again, the {key} is {value}.\n", "\n\nI repeat: the {key} is "),
        Wording("# {key}: {value}\n", "\n\n# {key}: "),
        Wording("Please write down the {key}: {value}.\n", "\n\nQ: What is the {key}?\nA: "),
        Wording("Keep in mind that the {key} is {value}.\n", "\n\nWhich number is the {key}? The {key} is "),
    ),
    "validation": (
        Wording("You will need the {key} later: it is {value}.\n", "\n\nAs said above, the {key} is "),
        Wording("[{key}] {value}\n", "\n\n[{key}] "),
        Wording("By the way, the {key} is {value}.\n", "\n\nTell me the {key}. The {key} is "),
    ),
    "heldout": (
        Wording(
            "The {key} is {value}. Remember it. {value} is the {key}.\n",
            "\n\nWhat is the {key}? The {key} is ",
        ),
        Wording("Here is the {key} that you asked for: {value}.\n", "\n\nHere is the {key} again: "),
        Wording("Important: the {key} has been changed to {value}.\n", "\n\nThe {key} has been changed to "),
        Wording("Do not lose the {key}, which is {value}.\n", "\n\nQuestion: the {key}? Answer: {key} is "),
    ),
}
_PAIRS: Mapping[Split, tuple[Wording, ...]] = {
    "train": (
        Wording("{key}: {value}\n", "\n\n{key}: ", heading="Items in stock:\n"),
        Wording("The {key} has number {value}.\n", "\n\nThe {key} has number "),
        Wording("- {key} costs {value}\n", "\n\nWhat does it cost? The {key} costs ", heading="Prices:\n"),
        Wording("| {key} | {value} |\n", "\n\n| {key} | "),
        Wording("Size of {key}: {value}\n", "\n\nSize of {key}: "),
    ),
    "validation": (
        Wording('"{key}": {value},\n', '\n\nWhat is the entry?\n"{key}": '),
        Wording("The {key} weighs {value} grams.\n", "\n\nThe {key} weighs "),
        Wording("Look for the {key} on page {value}.\n", "\n\nLook for the {key} on page "),
    ),
    "heldout": (
        Wording("The number for {key} is {value}.\n", "\n\nAnd again: the number for {key} is "),
        Wording("* {key} ({value})\n", "\n\n* {key} (", heading="Index:\n"),
        Wording("Our {key} holds {value} units.\n", "\n\nNow, our {key} holds "),
        Wording("Price of the {key}: {value}\n", "\n\nPrice of the {key}: "),
    ),
}
_QUESTION_FIRST: Mapping[Split, tuple[Wording, ...]] = {
    "train": (
        Wording(
            "The {key} is {value}.\n",
            "\n\nAnswer: the {key} is ",
            opening="Question: what is the {key}? Look for it below.\n\n",
        ),
        Wording(
            "You find the {key} here: {value}.\n",
            "\n\nI found the {key}: ",
            opening="Find the {key} in this text.\n\n",
        ),
        Wording(
            "Listen: the {key} is {value}.\n",
            "\n\nYes, the {key} is ",
            opening="Can you tell me the {key}? Read on.\n\n",
        ),
        Wording(
            "({key}: {value})\n",
            "\n\n({key}: ",
            opening="Somewhere in this text stands the {key}; copy it at the end.\n\n",
        ),
    ),
    "validation": (
        Wording(
            "This is the {key}: {value}.\n",
            "\n\nThis is the {key}: ",
            opening="At the end, say what the {key} is.\n\n",
        ),
        Wording(
            "For the record, the {key} is {value}.\n",
            "\n\nReply: the {key} is ",
            opening="I need the {key}. Search the text.\n\n",
        ),
    ),
    "heldout": (
        Wording(
            "Remember that the {key} is {value}.\n",
            "\n\nThe answer is that the {key} is ",
            opening="Which number is the {key}? You will be asked after the text.\n\n",
        ),
        Wording(
            "The {key} that we use is {value}.\n",
            "\n\nThe {key} that we use is ",
            opening="Task: report the {key} that is hidden in the text.\n\n",
        ),
        Wording(
            "Attention, {key}: {value}!\n",
            "\n\nSolution, {key}: ",
            opening="While you read, watch for the {key}.\n\n",
        ),
    ),
}
_DEFINITION: Mapping[Split, tuple[Wording, ...]] = {
    "train": (
        Wording("{key}: int = {value}\n", "\n\nassert {key} == "),
        Wording("{key} = {value}\n", "\n\n# {key} is set to "),
        Wording("def {key}():\n    return {value}\n", "\n\nassert {key}() == "),
        Wording("#define {key} {value}\n", "\n\n// {key} is "),
        Wording("const {key} = {value};\n", "\n\nconsole.log({key}); // "),
    ),
    "validation": (
        Wording("self.{key} = {value}\n", "\n\n# self.{key} is "),
        Wording("static int {key} = {value};\n", "\n\n// The value of {key} is "),
        Wording("cls.{key} = {value}\n", "\n\nself.assertEqual(cls.{key}, "),
    ),
    "heldout": (
        Wording("{key} := {value}\n", "\n\n// here {key} has the value "),
        Wording("let {key} = {value};\n", "\n\nassert_eq!({key}, "),
        Wording("final int {key} = {value};\n", "\n\nassertEquals({key}, "),
        Wording("{key} = {value}  # fixed\n", "\n\n# As defined, {key} is "),
    ),
}


def _by_split(
    forms: Mapping[Split, tuple[Wording, ...]], keys: Mapping[Split, tuple[str, ...]], facts: int = 1
) -> Mapping[Split, Wordings]:
    return {split: Wordings(forms[split], keys[split], facts) for split in forms}


WORDINGS: Mapping[RetrievalKind, Mapping[Split, Wordings]] = {
    "passkey": _by_split(_PASSKEY, _NUMBERS),
    "pairs": _by_split(_PAIRS, _THINGS, facts=3),
    "question_first": _by_split(_QUESTION_FIRST, _NUMBERS),
    "definition": _by_split(_DEFINITION, _NAMES),
}
"""Wordings by kind and split."""
