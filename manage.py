#!/usr/bin/env python
"""Django's management commands for the checkout. The server itself is started by ``make serve`` or ``lmx serve``."""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lmx_site.settings")
    execute_from_command_line(sys.argv)
