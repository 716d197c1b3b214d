"""Audit every bundle in a folder, such as a checkout of MONAI's model zoo, and tabulate what can be had.

    python tests/benchmarks/audit_zoo.py MODELS [-o TABLE.csv]

To name the folder is to trust the code of all bundles in it.
"""

import time
from pathlib import Path
from typing import Any

from csv_tables import command_line, save_or_print

from monai_ccnet.bundle import audit


def row_of(folder: Path) -> dict[str, Any]:
    start = time.monotonic()
    found = audit(folder)
    coarser = found.get("scales", {}).get("2", {})
    narrower, bits = found.get("narrower", [{}])[0], found.get("file_bytes", {})
    return {
        "bundle": found["bundle"],
        "network": str(found.get("network", "")).rsplit(".", 1)[-1],
        "parameters": found.get("parameters"),
        "file_bytes": bits.get("32"),
        "file_bytes_8_bits": bits.get("8"),
        "windows": found.get("windows", ""),
        "macs": found.get("macs"),
        "memory_bytes": found.get("memory_bytes"),
        "macs_at_1/2": coarser.get("macs"),
        "memory_bytes_at_1/2": coarser.get("memory_bytes"),
        "narrowed_by": found.get("argument"),
        "found_by_trying": "widths" in found,
        "smallest": "-".join(map(str, narrower.get("channels", ()))),
        "smallest_bytes": narrower.get("file_bytes", {}).get("32"),
        "reason": found.get("reason") or found.get("remove") or found.get("refused", ""),
        "seconds": f"{time.monotonic() - start:.1f}",
    }


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("models", type=Path)
    given = parser.parse_args()
    folders = sorted(path for path in given.models.iterdir() if (path / "configs").is_dir())
    save_or_print([row_of(folder) for folder in folders], given.output)


if __name__ == "__main__":
    main()
