# shellcheck shell=bash
# shellcheck disable=SC2154  # the options' variables are the scripts'
# Shared by the scripts: reading options and making the build's command. Sourced, not run.
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-python3}"
dry_run=""
rest=()
# shellcheck source=launch/checks.sh
source "$root/launch/checks.sh"

fail() {
  echo "error: $*" >&2
  exit 2
}

# Prints the header comment of the script that was started.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

# read_options "NAME NAME ..." ARGUMENTS: --NAME=VALUE and --NAME VALUE set $NAME; arguments after
# -- are kept in $rest for the program that is started ($rest_is_for, by default the build).
read_options() {
  local known="$1" name value
  shift
  while (($#)); do
    case "$1" in
      -h | --help) usage; exit 0 ;;
      --dry_run) dry_run=1; shift; continue ;;
      --) shift; rest=("$@"); return ;;
      --*) ;;
      *) fail "unexpected argument '$1'; --help shows the options" ;;
    esac
    name="${1%%=*}"
    name="${name#--}"
    [[ "$name" =~ ^[a-z_]+$ && " $known " == *" $name "* ]] ||
      fail "unknown option --$name; --help shows the options, those of ${rest_is_for:-the build} go after --"
    if [[ "$1" == *=* ]]; then
      value="${1#*=}"
      shift
    else
      value="${2:-}"
      shift $(($# > 1 ? 2 : 1))
    fi
    # If another option's name comes next, the value was forgotten.
    [[ -n "$value" && "$value" != --* ]] || fail "--$name needs a value"
    printf -v "$name" %s "$value"
  done
}

# set_command NAME ...: sets $command to the build's command line, or that of $program with the options
# $program_options first, without empty options. It sets PYTHONPATH and does not change the folder, so that relative paths stay those of the user's shell.
set_command() {
  local name
  command=(env "PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}"
    "$python" -m "${program:-beam_pipelines.build}" "--runner=$runner")
  for name in ${program_options:-input_dir output_dir} "$@"; do
    [[ -z "${!name}" ]] || command+=("--$name=${!name}")
  done
}

# Prints a command, quoted so that it can be pasted into a shell.
show() {
  local word line="" quote="'\\''"
  for word; do
    [[ "$word" =~ ^[A-Za-z0-9_=,.:/@%+-]+$ ]] || word="'${word//\'/$quote}'"
    line+="$word "
  done
  printf '%s\n' "${line% }"
}

end_dry_run() {
  [[ -z "$dry_run" ]] || { show "${command[@]}"; exit; }
}
