# Sourced by run_demo.sh and run_tests.sh, in the repository's root: makes .venv or brings it up to date, and uses it.

setup() {
  local requirements="$1" stamp
  stamp=".venv/$(basename "$requirements").installed"
  if [ ! -x .venv/bin/python ]; then
    echo "making .venv"
    python3 -m venv .venv
  fi
  # The stamp is a copy of what was installed: any change to a requirements file installs again.
  if ! cat requirements*.txt | cmp -s - "$stamp"; then
    echo "installing $requirements into .venv (PyTorch is a few GB; once)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements"
    cat requirements*.txt >"$stamp"
  fi
  export VIRTUAL_ENV="$PWD/.venv" PATH="$PWD/.venv/bin:$PATH"
}
