"""``python -m tests.conformance``: print the page that the cases make; ``--write`` puts it where it belongs."""

from __future__ import annotations

import os
import sys

import django

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lmx_site.settings")
    django.setup()
    from tests.conformance.document import FILE, document

    if "--write" in sys.argv[1:]:
        FILE.write_text(document(), encoding="utf-8")
    else:
        sys.stdout.write(document())
