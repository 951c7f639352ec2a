# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # the scripts use or set these variables
# Shared by the scripts of recipes that take several commands. Sourced, not run.
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
recipes="$root/launch/recipes"
rest_is_for=trainer.main

# run MODULE FLAG …: prints the command and, unless --dry_run is given, runs it.
run() {
  command=(env "PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}" "$python" -m "$@")
  show "${command[@]}"
  [[ -n "$dry_run" ]] || "${command[@]}"
}

# train RECIPE RUN FLAG …: a training with the recipe's flags, then those given here, then those
# after --.
train() {
  run trainer.main "--flagfile=$recipes/$1.flags" "--run_dir=$2" "${@:3}" ${rest[@]+"${rest[@]}"}
}
