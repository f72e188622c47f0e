# Sourced by run_demo.sh and run_tests.sh: makes .venv, or brings it up to date. An active environment is used as it is.

setup() {
  local requirements="$1" stamp
  [ -n "${VIRTUAL_ENV:-}" ] && return
  stamp=".venv/$(basename "$requirements").installed"
  if [ ! -x .venv/bin/python ]; then
    echo "making .venv"
    python3 -m venv .venv
  fi
  # The stamp is a copy of what was installed: any change to a requirements file installs again.
  if ! cat requirements.txt "$requirements" | cmp -s - "$stamp"; then
    echo "installing $requirements into .venv (PyTorch is a few GB; once)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements"
    cat requirements.txt "$requirements" >"$stamp"
  fi
}
