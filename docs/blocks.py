"""The blocks of Python in a page, and the output below them."""

import re

OUTPUT = '```text title="Output"\n'
BLOCK = re.compile(
    rf"```python\n(?P<code>.*?)```\n(?:\n{OUTPUT}(?P<output>.*?)```\n)?",
    flags=re.DOTALL,
)
