#!/bin/bash
# Stands in for Python where a test watches what make and its script call: says 3.12, makes an "environment" that is
# itself, and writes each call down as one line of $CALLS. FAIL_PIP makes pip fail as it does without a network.
echo "$*" >>"$CALLS"
case "$*" in
  *"sys.exit(sys.version_info"*) exit "${OLD_PYTHON:-0}" ;;
  *platform.system*) echo "${MACHINE:-Linux x86_64}" ;;
  *sysconfig*) echo "$PWD/.venv/lib" ;;
  "--version") echo "Python 3.12.0" ;;
  "-m venv"*)
    if [ -n "$FAIL_VENV" ]; then exit 1; fi
    for last in "$@"; do :; done
    mkdir -p "$last/bin" "$last/lib"
    cp "$0" "$last/bin/python"
    ;;
  "-m pip"*)
    if [ -n "$FAIL_PIP" ]; then
      echo "WARNING: Retrying after the connection broke" >&2
      echo "ERROR: Could not find a version that satisfies the requirement" >&2
      exit 1
    fi
    ;;
esac
