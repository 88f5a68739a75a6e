"""Parts of pages that are made from the code when the site is built, so that they cannot differ from it.

A line ``<!-- make: NAME ARGUMENT -->`` in a page is replaced by what the function below returns.
"""

from __future__ import annotations

import json
import re
from html import escape, unescape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PERCENT = re.compile(r"(<pre.*?</pre>)|(\d) %", re.DOTALL)
ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):(?=<(?:code|a|span|autoref))")
TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
CELL = re.compile(r"<t([hd])[^>]*>(.*?)</t\1>", re.DOTALL)
PHONE = 44  # letters beside each other on a phone, in the size of a table
NAME = re.compile(r"(<pre.*?</pre>)|(<td[^>]*>)?<code>([^<\n]{2,36})</code>", re.DOTALL)
MARK = re.compile(r"^<!-- make: (\w+) ?(.*?) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in a page; called by mkdocs."""
    return MARK.sub(lambda match: MAKERS[match[1]](match[2]), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Drop the roles of docstrings, keep a number and its per cent sign on one line; called by mkdocs."""
    html = ROLE.sub("", html)
    html = PERCENT.sub(lambda match: match[0] if match[1] else f"{match[2]}&nbsp;%", html)
    return TABLE.sub(_folding, html)


def _folding(match: re.Match[str]) -> str:
    """A table too wide for a phone, with the title of its column on each cell: style.css makes rows entries there."""
    rows = [CELL.findall(row) for row in match[0].split("</tr>")]
    plain = [[unescape(re.sub(r"<[^>]+>", "", content)) for _, content in row] for row in rows if row]
    titles = plain[0]
    words = [[word for row in plain for word in row[k].split(" ")] for k in range(len(titles))]
    longest = [max(map(len, column)) for column in words]
    if sum(longest) + 2 * len(longest) <= PHONE:
        return match[0]
    place = iter(range(len(titles) * len(plain)))

    def titled(cell: re.Match[str]) -> str:
        return f'<td data-title="{escape(titles[next(place) % len(titles)])}"{cell[1]}>'

    return re.sub(r"<td([^>]*)>", titled, match[0]).replace("<table>", "<table data-folds>")


def on_post_page(output: str, **_: Any) -> str:
    """Keep names and options on one line, in tables break long ones after an underscore; called by mkdocs.

    After the page's words are indexed, so that names are found as they are.
    """
    return NAME.sub(_whole, output)


def _whole(match: re.Match[str]) -> str:
    pre, cell, name = match.groups()
    return pre or f'{cell or ""}<code class="whole">{name.replace("_", "_<wbr>") if cell else name}</code>'


def columns(group: str) -> str:
    """Table of a group of columns of :mod:`mace_bounds.columns`, such as ``BOUNDS``."""
    from mace_bounds import columns as schema

    lines = ["| column | unit | type | meaning |", "|---|---|---|---|"]
    lines += [f"| `{c.name}` | {c.unit} | {c.dtype} | {c.meaning} |" for c in getattr(schema, group)]
    return "\n".join(lines)


def flags(_: str) -> str:
    """Table of all flags."""
    from mace_bounds.flags import FLAGS

    lines = ["| flag | meaning |", "|---|---|"]
    lines += [f"| `{flag.name}` | {flag.meaning} |" for flag in FLAGS.values()]
    return "\n".join(lines)


def formats(_: str) -> str:
    """Table of the formats that are read, from the registry."""
    from mace_bounds.structures.formats import FORMATS

    lines = ["| format | file names | label |", "|---|---|---|"]
    for format in FORMATS.values():
        names = [f"`*{suffix}`" for suffix in format.suffixes]
        names += [f"`{format.file_names}`".replace("|", "\\|")] if format.file_names else []
        lines.append(f"| {format.name} | {', '.join(names)} | {format.labels or 'none'} |")
    return "\n".join(lines)


def foreign(_: str) -> str:
    """Table of what is not read, and the remedy."""
    from mace_bounds.structures.formats.foreign import FOREIGN

    lines = ["| what | what to do |", "|---|---|"]
    lines += [f"| {foreign.name} | {foreign.remedy} |" for foreign in FOREIGN]
    return "\n".join(lines)


def commands(_: str) -> str:
    """Every command with its arguments and options, from the application itself."""
    from mace_bounds.cli.app import COMMANDS, load_command

    return "\n\n".join(_command(name, load_command(name)) for name in COMMANDS)


def _command(name: str, command: Any) -> str:
    context = command.make_context(name, [], resilient_parsing=True)
    usage = " ".join(["mace-bounds", name, *command.collect_usage_pieces(context)])
    lines = [f"## {name}", "", _paragraphs(command.help), "", f"```text\n{usage}\n```", ""]
    lines += ["| argument or option | meaning |", "|---|---|"]
    for parameter in command.get_params(context):
        if parameter.name != "help":
            shown, meaning = parameter.get_help_record(context)
            shown = parameter.metavar if parameter.param_type_name == "argument" else shown
            lines.append(f"| `{' '.join(shown.split())}` | {_cell(meaning).replace('<', '&lt;')} |")
    return "\n".join(lines)


def _paragraphs(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n"))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def notebook(path: str) -> str:
    """Return a notebook as Markdown: cells as they are, outputs as text, tables and pictures."""
    cells = json.loads((ROOT / path).read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            parts.append(f"```python\n{source}\n```")
            parts += [_output(output) for output in cell["outputs"]]
        else:
            parts.append(source)
    return "\n\n".join(parts)


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="Plot of the cell above" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    if "text/html" in data:
        html = re.sub(r"<style.*?</style>", "", "".join(data["text/html"]), flags=re.DOTALL)
        html = re.sub(r"\n\s*", "", html)
        return f'<div class="notebook-table">{html}</div>'
    return f"```text\n{''.join(output.get('text', data.get('text/plain', ''))).rstrip()}\n```"


def include(path: str) -> str:
    """Return a page of the repository without its heading."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return text.partition("\n")[2]


MAKERS = {
    "include": include,
    "columns": columns,
    "flags": flags,
    "formats": formats,
    "foreign": foreign,
    "commands": commands,
    "notebook": notebook,
}
