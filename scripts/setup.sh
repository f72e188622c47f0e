# Sourced by run_demo.sh and run_tests.sh, in the repository's root: makes .venv or brings it up to date, and uses it.
# PYTHON=python3.12 in front chooses the Python of a new .venv. NO_CONSTRAINTS=1 installs the newest version of everything
# instead of the tested ones in constraints.txt.

setup() {
  local requirements="$1" constraints=constraints.txt python="${PYTHON:-python3}" stamp
  stamp=".venv/$(basename "$requirements").installed"
  if [ -n "${NO_CONSTRAINTS:-}" ]; then
    constraints=/dev/null
  fi
  # Without pip it is an environment that could not be completed.
  if [ ! -x .venv/bin/python ] || [ ! -x .venv/bin/pip ]; then
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
      echo "error: $python is no Python 3.10 or newer; PYTHON=python3.12 in front names another one" >&2
      return 2
    fi
    echo "making .venv"
    "$python" -m venv .venv
  fi
  # The stamp is a copy of what was asked for: any change to a requirements file or to the constraints installs again.
  if ! cat requirements*.txt "$constraints" | cmp -s - "$stamp"; then
    echo "installing $requirements into .venv (PyTorch is a few GB; once)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements" -c "$constraints"
    cat requirements*.txt "$constraints" >"$stamp"
  fi
  export VIRTUAL_ENV="$PWD/.venv" PATH="$PWD/.venv/bin:$PATH"
}
