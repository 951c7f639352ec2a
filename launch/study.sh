# shellcheck shell=bash
# shellcheck disable=SC2154  # the options' variables are the scripts'
# Shared by the study_*.sh scripts. Sourced after common.sh and workers.sh, not run.

# set_study PYTHON FLAG …: the command line of trainer.compare, in $study.
# shellcheck disable=SC2034  # the scripts use it
set_study() {
  study=("$1" -m trainer.compare "--data_dir=$data_dir" "--study_dir=$study_dir"
    ${rest[@]+"${rest[@]}"} "${@:2}")
}

# Fails if a flag after -- is one that the script sets itself.
refuse_study_flags() {
  local flag
  for flag in ${rest[@]+"${rest[@]}"}; do
    case "$flag" in
      --data_dir | --data_dir=* | --study_dir | --study_dir=* | --cells | --cells=* | --runs | --runs=*)
        fail "${flag%%=*} after --: this script sets it; give it before --, if it is an option" ;;
    esac
  done
}
