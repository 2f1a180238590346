"""For the build: make a wheel with bytecode in the place of sources, by the Python that will run it (`bytecode.mjs`).

So that a first visit need not compile durably. Bytecode takes two and a half times the space, so other packages stay as
they are. The same sources give the same bytes.
"""

import marshal
import zipfile
from importlib.util import MAGIC_NUMBER, source_hash
from site import getsitepackages

UNCHECKED_HASH = (1).to_bytes(4, "little")  # PEP 552: there is no source to compare it with

with zipfile.ZipFile("/wheel.zip") as wheel, zipfile.ZipFile("/result.zip", "w") as result:
    for name in wheel.namelist():
        content = wheel.read(name)
        if name.endswith(".py"):
            code = compile(content, f"{getsitepackages()[0]}/{name}", "exec", dont_inherit=True)
            content = MAGIC_NUMBER + UNCHECKED_HASH + source_hash(content) + marshal.dumps(code)
            name += "c"
        result.writestr(zipfile.ZipInfo(name), content)
