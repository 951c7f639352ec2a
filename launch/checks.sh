# shellcheck shell=bash
# shellcheck disable=SC2154  # the options' variables are the scripts'
# Checks options and programs before a script starts anything; a failed check ends it with one line.
# Sourced, not run.

# need NAME ...: fails if one of these options was not given.
need() {
  local name
  for name; do
    [[ -n "${!name}" ]] || fail "missing option --$name; --help explains it"
  done
}

# need_remote NAME ...: fails if a path is on this machine's disk, which containers and other
# machines do not see.
need_remote() {
  local name
  for name; do
    [[ "${!name}" == *://* ]] ||
      fail "--$name=${!name}: the workers do not see this machine's disk; use gs:// or s3://"
  done
}

# Checks --environment_type: how a Flink or Spark cluster starts Python.
check_environment() {
  case "$environment_type" in
    DOCKER) need environment_config; need_remote input_dir output_dir ;;
    EXTERNAL) need environment_config ;;
    LOOPBACK) ;;
    *) fail "--environment_type=$environment_type: must be DOCKER, EXTERNAL or LOOPBACK" ;;
  esac
}

need_command() { command -v "$1" >/dev/null || fail "$1 is not installed: $2"; }

# need_gcloud PATH ...: fails if gcloud is missing or not logged in, or cannot list a path's bucket.
need_gcloud() {
  local path bucket
  need_command gcloud "https://cloud.google.com/sdk/docs/install"
  gcloud auth print-access-token >/dev/null 2>&1 || fail "not logged in: gcloud auth login"
  gcloud auth application-default print-access-token >/dev/null 2>&1 ||
    fail "Beam has no credentials: gcloud auth application-default login"
  for path; do
    if [[ "$path" == gs://* ]]; then
      bucket="${path#gs://}"
      bucket="gs://${bucket%%/*}"
      gcloud storage ls "$bucket" >/dev/null 2>&1 ||
        fail "$path: bucket $bucket does not exist, or this login may not list it"
    fi
  done
}

# need_module MODULE EXTRA
need_module() {
  "$python" -c "import $1" 2>/dev/null ||
    fail "$python cannot import $1: pip install -c '$root/constraints.txt' '${root}[$2]'"
}

# This machine, too, reads the list of the input files and checks the output.
need_store_modules() {
  case "$input_dir $output_dir" in *gs://*) need_module gcsfs gcp ;; esac
  case "$input_dir $output_dir" in *s3*://*) need_module s3fs aws ;; esac
}

# need_port HOST:PORT WHAT
need_port() {
  "$python" -c 'import socket, sys; socket.create_connection(sys.argv[1:], 5)' \
    "${1%:*}" "${1##*:}" 2>/dev/null ||
    fail "$2 cannot be reached at $1 (HOST:PORT) from this machine"
}
