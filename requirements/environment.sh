#!/bin/bash
# Prepares .venv for the checkout and installs the pins it lacks. Runs under bash 3.2 and BSD tools.
#   requirements/environment.sh [base|test|lint|chromium|clients|node]...
# `clients` and `node` are what tests/clients talks to the server with; they go to .venvs/clients and .venvs/node.
# PYTHON names the interpreter to use. Each set has a stamp with the checksum of its pins, written when all of them are
# in; so a second run calls no pip, and one that was interrupted starts again where it was.
set -e
cd "$(dirname "$0")/.."

VENV=.venv
LOG=$VENV/install.log
NEWER='import sys; sys.exit(sys.version_info < (3, 11))'

fail() {
  echo "opta-lmx: $*" >&2
  exit 1
}

find_python() {
  if [ -n "$PYTHON" ]; then
    "$PYTHON" -c "$NEWER" >/dev/null 2>&1 || fail "PYTHON=$PYTHON is no Python 3.11 or newer: name another one."
    return
  fi
  for PYTHON in python3.13 python3.12 python3.11 python3.14 python3; do
    if "$PYTHON" -c "$NEWER" >/dev/null 2>&1; then return; fi
  done
  fail "no Python 3.11 or newer found: install one, or name it with 'make serve PYTHON=/path/to/python3'."
}

make_environment() {
  if "$VENV/bin/python" -c "$NEWER; import pip" >/dev/null 2>&1; then return; fi
  find_python
  if [ "$("$PYTHON" -c 'import platform; print(platform.system(), platform.machine())')" = "Darwin x86_64" ]; then
    fail "MLX needs Apple silicon and a Python built for it: $PYTHON is an Intel one."
  fi
  echo "Making $VENV with $("$PYTHON" --version 2>&1)"
  "$PYTHON" -m venv --clear "$VENV" >/dev/null 2>&1 ||
    fail "$PYTHON cannot make a virtual environment: install its venv module (Debian: apt-get install python3-venv)."
}

pip_install() {
  if "$VENV/bin/python" -m pip install -qq --no-input --disable-pip-version-check "$@" >"$LOG" 2>&1; then return; fi
  grep -v '^WARNING' "$LOG" | tail -n 2 >&2
  fail "installing failed ($LOG has it all): check the network and the free space, then run the same command again."
}

# `lmx` in the environment runs the checkout, from any directory.
link_checkout() {
  packages=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  pwd -P >"$packages/opta-lmx-checkout.pth"
  printf '#!/bin/sh\nexec "%s/bin/python" -m lmx_site.cli "$@"\n' "$(pwd -P)/$VENV" >"$VENV/bin/lmx"
  chmod +x "$VENV/bin/lmx"
}

install_set() {
  pins="requirements/$1.txt"
  files=("$pins")
  if [ "$1" = base ]; then files=("$pins" requirements/engine.txt); fi
  options=()
  if [ "$1" = clients ]; then options=(--no-compile); fi # two thirds of the time; most modules are never imported
  stamp="$VENV/.installed-$1"
  sum="$(cat "${files[@]}" | cksum) $(pwd -P)"
  if [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ] && "$VENV/bin/python" -c '' 2>/dev/null; then return; fi
  make_environment
  rm -f "$stamp"
  case "$1" in
    base) what="pinned packages (0.5 GB in $VENV, a minute or two)" ;;
    clients) what="pinned packages for $1 (0.4 GB in $VENV, about a minute)" ;;
    *) what="pinned packages for $1" ;;
  esac
  echo "Installing $(grep -c '==' "$pins") $what"
  pip_install ${options[@]+"${options[@]}"} -r "$pins"
  if [ "$1" = base ]; then
    engine=$(grep -v '^#' requirements/engine.txt)
    echo "Installing ${engine//$'\n'/ and } without the torch and gradio that they ask for"
    pip_install --no-deps -r requirements/engine.txt
    link_checkout
  fi
  echo "$sum" >"$stamp"
}

# A program of Debian's, where this may install it.
apt_install() {
  if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" != 0 ]; then return 1; fi
  echo "Installing $1 for the tests"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update >"$LOG" 2>&1 && apt-get -qq -y install "$@" >>"$LOG" 2>&1
}

install_chromium() {
  if command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1; then return; fi
  if [ -d "/Applications/Google Chrome.app" ] || [ -d "/Applications/Chromium.app" ]; then return; fi
  if apt_install chromium fonts-dejavu-core; then return; fi
  echo "No Chromium here: the browser tests will be skipped (install Chromium or Google Chrome to run them)."
}

# Clients with dependencies of their own, that the server's pins must not bend to.
install_clients() {
  if [ -z "$PYTHON" ] && [ -x .venv/bin/python ]; then local PYTHON=.venv/bin/python; fi
  local VENV=.venvs/clients
  local LOG=$VENV/install.log
  install_set clients
}

node_is_there() {
  command -v npm >/dev/null 2>&1 && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null
}

# package.json has every version, so there is no lock file; no package runs a script of its own.
install_node() {
  local LOG=.venvs/node/install.log
  mkdir -p .venvs/node
  if ! node_is_there; then
    apt_install nodejs npm || true
    if ! node_is_there; then
      echo "No Node.js 20 or newer with npm here: the tests of npm clients will be skipped (install them to run these)."
      return
    fi
  fi
  stamp=.venvs/node/.installed
  sum="$(cksum <requirements/package.json) $(node --version)"
  if [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ]; then return; fi
  echo "Installing $(grep -c '": "[0-9]' requirements/package.json) pinned npm packages (0.1 GB in .venvs/node)"
  rm -rf "$stamp" .venvs/node/node_modules
  cp requirements/package.json .venvs/node/package.json
  if (cd .venvs/node && npm install --no-package-lock --ignore-scripts --no-audit --no-fund) >"$LOG" 2>&1; then
    echo "$sum" >"$stamp"
    return
  fi
  grep -i '^npm err' "$LOG" | head -n 2 >&2
  fail "installing failed ($LOG has it all): check the network and the free space, then run the same command again."
}

for set in "$@"; do
  case "$set" in
    base | test | lint) install_set "$set" ;;
    chromium) install_chromium ;;
    clients) install_clients ;;
    node) install_node ;;
    *) fail "unknown set of packages: $set" ;;
  esac
done
