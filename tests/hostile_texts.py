"""Texts that shells, templates, browsers, terminals, spreadsheets and paths would act on: row 33 of the backlog."""

from __future__ import annotations

import itertools

PAYLOADS = [
    "$(touch /tmp/x)", "`id`", "; id", "& id", "| id", "|| id", "&& id", "\n id", "> /tmp/x", "< /etc/passwd",
    "${IFS}id",
    "$HOME", "~root", "*", "?", "[a-z]", "{a,b}", "!!", "\\", "'", '"', "''", '""', "#", "--help", "-rf /", "%s%n",
    "%00",
    "{{7*7}}", "${7*7}", "<%= 7 %>", "#{7}", "{% raw %}", "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)", "' OR 1=1 --", "'; DROP TABLE jobs; --", "=1+1", "+1", "-1", "@SUM(A1)", "=cmd|'/c calc'!A1",
    "\x1b[2J", "\x07", "\x1b]0;x\x07", "\u202e", "\u2028", "\ufeff", "../../etc/passwd", "..\\..", "file:///etc/passwd",
    "<svg/onload=alert(1)>", "<iframe src=javascript:alert(1)>", "<a href=javascript:alert(1)>x</a>", "<!--", "]]>",
    "<div hx-get=/v1/session hx-trigger=load>", "<img src=//evil.example/x>", "<base href=//evil.example>",
    '<meta http-equiv=refresh content="0;url=//evil.example">', "' onmouseover='alert(1)",
    "</title><style>*{display:none}",
    "a\r\nX: y", "é" * 40, "\u4f60\u597d", "\U0001f600", "[link](http://evil)", "<b>", "&lt;", "\t",
]  # fmt: skip
AROUND = ("{}", "a {} b", "'{}'", '"{}"', "$({})")
TEXTS = [around.replace("{}", payload) for payload, around in itertools.product(PAYLOADS, AROUND)]
