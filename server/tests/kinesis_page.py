"""What docs/api/kinesis.md says of operations and clients: tests hold it to that."""

import os
import re

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/api/kinesis.md")


def rows(heading):
    """The cells of the table below a heading, without its head."""
    text = open(PAGE, encoding="utf-8").read()
    assert text.count(f"\n{heading}\n") == 1, f"{PAGE}: {heading}"
    lines = text.split(f"\n{heading}\n")[1].split("\n#")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("|")]
    assert len(cells) > 2, f"{PAGE}: no table below {heading}"
    return cells[0], cells[2:]


def names(cell):
    return re.split(r",\s*", cell)


def column(client):
    """The operations that a client ran, as the page says."""
    head, table = rows("### What was run")
    at = head.index(client)
    return {name for row in table for name in names(row[0]) if row[at] == "yes"}


def not_here():
    """What of the models is not here: pairs of an operation, or `every`, and a name."""
    _, table = rows("### What of the models is not here")
    return [(operation, item) for row in table for operation in names(row[0]) for item in re.findall(r"`([^`]+)`", row[1])]


def check(client, ran):
    said = column(client)
    assert said == ran, f"{client}: the page has {sorted(said - ran)} too, and lacks {sorted(ran - said)}"
