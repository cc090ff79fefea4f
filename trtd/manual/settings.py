"""trtd.toml(5): the schema of the configuration as a man page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from trtd.config.files import DROP_INS, TENANT_FILES
from trtd.config.load import SYSTEM_FILE, VENDOR_FILE
from trtd.config.model import CONFIG_VERSION
from trtd.config.origins import key_text
from trtd.config.schema import KeyPath, Leaf, Named, Node, Section, schema, unit
from trtd.config.show import toml_value
from trtd.manual.roff import bold, example, heading, italic, page, paragraph, subheading, tagged

NAME = "NAME"
EXAMPLE = """
[tenants.vision.models.resnet]
path = "/srv/models/resnet.onnx"
max_batch = 16

[tenants.vision.queue]
max_requests = 256
"""


def settings_page() -> str:
    """The text of `etc/man/trtd.toml.5`."""
    return page("trtd.toml", 5, "configuration of the inference daemon trtd", _body())


def _body() -> Iterator[str]:
    yield heading("description")
    yield paragraph(
        "The configuration is TOML. Values come from these places; a later one wins over an earlier one, tables merge"
        " key by key:"
    )
    system = SYSTEM_FILE.parent
    for place, meaning in (
        (str(VENDOR_FILE), "defaults of the package"),
        (str(SYSTEM_FILE), "the system's file; --config FILE takes its place"),
        (f"{system / DROP_INS}/*.toml", "drop-ins, in the order of their names"),
        (f"{system / TENANT_FILES}/NAME.toml", "the keys of one tenant, without [tenants.NAME]"),
        ("TRTD_SECTION__KEY", "environment variables, two underscores between the parts of a key; the value is TOML"),
        ("flags", "of `trtd serve`"),
    ):
        yield tagged(italic(place), f"{meaning[0].upper()}{meaning[1:]}.")
    yield paragraph(
        "An unknown key is an error, and so is a value that is out of range: a configuration with any problem is"
        " refused as a whole. `trtd config check` prints every problem, `trtd config show --origin` what is in force"
        " and where it comes from. Relative paths start at the directory of the file that they stand in. A number of"
        ' bytes or seconds may be written with its unit, as "256MiB" (of 1024), "256MB" (of 1000), "100ms" or "2m".'
    )
    yield paragraph(
        f"`version` is the version of this format, {CONFIG_VERSION}. A file of another version is refused with the"
        " version that is understood, and the running configuration stays."
    )
    yield heading("keys")
    yield from _section((), schema())
    yield heading("examples")
    yield example(EXAMPLE)
    yield heading("files")
    yield tagged(italic("/usr/share/doc/trtd/examples/trtd.toml"), "Every key with its default, to copy from.")
    yield heading("see also")
    yield f"{bold('trtd')}(1), {bold('trtd')}(8)"


def _section(path: KeyPath, section: Section) -> Iterator[str]:
    if path:
        yield subheading(f"[{key_text(path)}]")
        yield paragraph(f"{section.description}{' The table may be absent.' if section.is_optional else ''}")
    for key, node in section.keys.items():
        if isinstance(node, Leaf):
            yield tagged(bold(key), _leaf((*path, key), node))
    for key, node in section.keys.items():
        if not isinstance(node, Leaf):
            yield from _table((*path, key), node)


def _table(path: KeyPath, node: Node) -> Iterator[str]:
    if isinstance(node, Section):
        yield from _section(path, node)
    elif isinstance(node, Named) and isinstance(node.item, Section):
        yield from _section((*path, NAME), node.item)
    elif isinstance(node, Named) and isinstance(node.item, Named):
        yield from _table((*path, NAME), replace(node.item, description=node.description))
    elif isinstance(node, Named) and isinstance(node.item, Leaf):
        yield subheading(f"[{key_text(path)}]")
        yield paragraph(f"{_sentence(node.description)} Each is {node.item.expectation}.")


def _leaf(path: KeyPath, leaf: Leaf) -> str:
    value = f"{unit(path)}, {leaf.expectation}" if unit(path) else leaf.expectation
    if leaf.default is not None:
        default = f"Default: {toml_value(leaf.default)}."
    else:
        default = "Required." if leaf.is_required else "May be absent."
    return " ".join(
        [_sentence(leaf.description), f"Value: {value}.", default, f"A changed value: {leaf.reload.value}."]
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
