"""The study's settings of a tokenizer, whatever settings the checkpoint stores."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from ablations.core.artefact import open_artefact
from ablations.core.errors import UserError
from ablations.lm.checkpoint import load_tokenizer
from ablations.lm.corpus import windows
from ablations.lm.document import Document
from ablations.lm.models.random import make_random_model
from ablations.lm.tokenizer import apply_study_settings, prefix_ids, user_turn, without_leading_space
from ablations.specs.lm import RandomModel
from tests.lm.llama_like import BOS, EOS, SYMBOLS, llama_like, save_llama_like

MakeModel = Callable[..., Path]
TEXT = "To be, or not to be ."
IDS = [SYMBOLS.index("▁" if character == " " else character) for character in " " + TEXT]
DOCUMENT = Document(id="d", kind="file", split="heldout", text=TEXT)


def tokenizer_of(make_model: MakeModel, folder: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(make_model("copy", source="pretrained", name=str(folder), layers=2))


@pytest.mark.parametrize("eos", [False, True])
@pytest.mark.parametrize("bos", [False, True])
def test_windows_are_first_tokens_after_what_the_tokenizer_puts_before_a_text(
    make_model: MakeModel, tmp_path: Path, bos: bool, eos: bool
) -> None:
    """Truncated at the end, not padded, nothing after the text, BOS by the tokenizer's own rule."""
    tokenizer = tokenizer_of(make_model, save_llama_like(tmp_path / "mine", bos=bos, eos=eos))
    expected = [SYMBOLS.index(BOS)] * bos + IDS
    for tokens in (6, len(expected), None):
        (window,) = windows([DOCUMENT], tokenizer, "heldout", 1, tokens)
        assert window.ids.tolist() == expected[:tokens]
    with pytest.raises(UserError, match="1 documents of at least"):
        windows([DOCUMENT], tokenizer, "heldout", 1, len(expected) + 1)
    assert tokenizer(TEXT).input_ids == expected, "the harness calls it like this"
    assert tokenizer.decode(tokenizer(TEXT).input_ids, skip_special_tokens=True) == TEXT
    facts = open_artefact(tmp_path / "copy/manifest.json")[1].facts
    assert facts["prompt_start"] == (BOS if bos else "")


def test_a_chat_template_has_said_where_bos_belongs(make_model: MakeModel, tmp_path: Path) -> None:
    template = "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}"
    tokenizer = tokenizer_of(make_model, save_llama_like(tmp_path / "mine", template))
    document = DOCUMENT.model_copy(update={"text": user_turn(tokenizer, TEXT)})
    (window,) = windows([document], tokenizer, "heldout", 1, None, templated=True)
    assert window.ids.tolist().count(SYMBOLS.index(BOS)) == 1
    assert window.ids[0] == SYMBOLS.index(BOS)


def test_models_without_bos_keep_their_tokens() -> None:
    _, tokenizer = make_random_model(RandomModel(source="random", architecture="llama", layers=1))
    before = tokenizer(TEXT).input_ids
    assert (
        apply_study_settings(tokenizer)(TEXT).input_ids
        == before
        == list(tokenizer(TEXT, add_special_tokens=False).input_ids)
    )
    assert prefix_ids(tokenizer) == []
    assert without_leading_space(tokenizer) is tokenizer


def test_within_a_text_no_space_is_put_before_it() -> None:
    tokenizer = apply_study_settings(llama_like())
    within = without_leading_space(tokenizer)
    assert within(TEXT, add_special_tokens=False).input_ids == IDS[1:]
    assert tokenizer(TEXT, add_special_tokens=False).input_ids == IDS


def test_a_legacy_normalizer_puts_none_either() -> None:
    """Older conversions prepend the space in the normalizer, and have no pre-tokenizer."""
    state = json.loads(llama_like().backend_tokenizer.to_str())
    state["pre_tokenizer"] = None
    state["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    whole = llama_like().backend_tokenizer.from_str(json.dumps(state))
    tokenizer = apply_study_settings(
        PreTrainedTokenizerFast(tokenizer_object=whole, bos_token=BOS, eos_token=EOS)
    )
    assert tokenizer(TEXT).input_ids == [SYMBOLS.index(BOS), *IDS]
    assert without_leading_space(tokenizer)(TEXT, add_special_tokens=False).input_ids == IDS[1:]


FAILING = {
    "does not compile": ("{% for m in messages", r"fails: TemplateSyntaxError: unexpected"),
    "raises": ("{{ raise_exception('no users') }}", r"fails: TemplateError: no users"),
    "divides": ("{{ 1 / 0 }}", r"fails: ZeroDivisionError"),
    "several": ({"tool_use": "x", "rag": "y"}, r"fails: ValueError: .*multiple chat templates"),
    "leaves out": ("{{ bos_token }}[INST][/INST]", r"leaves out what the user says"),
}


@pytest.mark.parametrize("kind", FAILING)
def test_a_chat_template_that_fails_is_one_line(kind: str) -> None:
    tokenizer = llama_like()
    tokenizer.chat_template, message = FAILING[kind]
    with pytest.raises(
        UserError, match=rf"the target's chat template {message}.*; mend its chat_template, or set"
    ):
        user_turn(tokenizer, TEXT)


@pytest.mark.parametrize(
    "content",
    [
        "{% for part in m.content %}{{ part.text }}{% endfor %}",
        "{{ m.content[0]['text'] | trim }}",
        "{% if m.content is string %}{{ raise_exception('blocks') }}{% endif %}{{ m.content[0].text }}",
    ],
)
def test_content_blocks_for_templates_that_want_them(content: str) -> None:
    tokenizer = llama_like()
    tokenizer.chat_template = f"{{% for m in messages %}}<{content}>{{% endfor %}}"
    assert user_turn(tokenizer, TEXT) == f"<{TEXT}>"


def test_a_template_that_writes_the_date_writes_one_date() -> None:
    tokenizer = llama_like()
    tokenizer.chat_template = "\n{{ strftime_now('%d %b %Y, %Y-%m-%d') }}{{ messages[0].content }}"
    assert user_turn(tokenizer, "?") == "\n26 Jul 2024, 2024-07-26?"


def test_tokens_that_were_added_without_rows_are_named(make_model: MakeModel, tmp_path: Path) -> None:
    folder = save_llama_like(tmp_path / "mine")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens([f"<tool_{number}>" for number in range(200)])
    tokenizer.save_pretrained(folder)
    beyond = len(tokenizer) - 258
    with pytest.raises(
        UserError, match=rf"{beyond} tokens of the tokenizer .*<tool_.* no row .*embedding of 258; resize"
    ):
        tokenizer_of(make_model, folder)


def test_a_padding_token_without_a_row_is_left_out(make_model: MakeModel, tmp_path: Path) -> None:
    """Many checkpoints have such a token. Nothing is padded, and the token's name in a text is plain text."""
    folder = save_llama_like(tmp_path / "mine")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<{number}>" for number in range(100, 257)]})
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id == 256
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(256, mean_resizing=False)
    model.save_pretrained(folder)
    loaded = tokenizer_of(make_model, folder)
    assert (loaded.bos_token, loaded.pad_token) == (BOS, None)
    assert loaded.convert_ids_to_tokens(loaded("<100>[PAD]").input_ids) == [BOS, "<100>", *"[PAD]"]


def test_a_tokenizer_in_slow_form_alone_is_refused(make_model: MakeModel, tmp_path: Path) -> None:
    """Also without the slow form's files: `transformers` would invent a tokenizer without words."""
    folder = save_llama_like(tmp_path / "mine")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"mine': no tokenizer\.json, the fast form of a tokenizer; where"):
        tokenizer_of(make_model, folder)
    (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>")
    with pytest.raises(UserError, match=r"mine': no tokenizer\.json"):
        tokenizer_of(make_model, folder)


def test_a_tokenizer_that_cannot_be_read_is_one_line(make_model: MakeModel, tmp_path: Path) -> None:
    folder = save_llama_like(tmp_path / "mine")
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": 3}')
    with pytest.raises(UserError, match=r"mine': its tokenizer cannot be loaded: "):
        tokenizer_of(make_model, folder)
