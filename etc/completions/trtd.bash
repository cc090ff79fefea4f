# Made by scripts/manual from the code. Changes here are lost.
_trtd() {
    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
    local command= tenant= position=0 is_value= index
    for ((index = 1; index < COMP_CWORD; index++)); do
        if [[ -n $is_value ]]; then
            is_value=
        elif [[ -z $command ]]; then
            command=${COMP_WORDS[index]}
        else
            case $command:${COMP_WORDS[index]} in
            serve:--config | serve:--model | serve:--runtime-dir | serve:--log-format | serve:--log-level | status:--runtime-dir | top:--runtime-dir | health:--tenant | health:--runtime-dir | drain:--timeout | drain:--runtime-dir | resume:--runtime-dir | restart:--timeout | restart:--runtime-dir | fault:--runtime-dir | reload:--timeout | reload:--runtime-dir | infer:--input | infer:--shape | infer:--version | infer:--output | infer:--save | infer:--timeout | infer:--runtime-dir | bench:--input | bench:--shape | bench:--version | bench:--config | bench:--concurrency | bench:--seconds | bench:--requests | bench:--batch | bench:--warmup | bench:--timeout | bench:--runtime-dir | config:--config | doctor:--config | doctor:--wait-for-devices | demo:--seconds | demo:--gpu | support-bundle:--output | support-bundle:--log | support-bundle:--config | support-bundle:--runtime-dir) is_value=1 ;;
            *:-*) ;;
            *)
                [[ $position -gt 0 ]] || tenant=${COMP_WORDS[index]}
                position=$((position + 1))
                ;;
            esac
        fi
    done
    COMPREPLY=()
    if [[ -z $command ]]; then
        COMPREPLY=($(compgen -W "serve status top health drain resume restart fault reload infer bench config doctor demo support-bundle completion version --help" -- "$word"))
    elif [[ -n $is_value ]]; then
        case $command:$previous in
        serve:--config) COMPREPLY=($(compgen -f -- "$word")); compopt -o filenames 2>/dev/null ;;
        serve:--runtime-dir) COMPREPLY=($(compgen -d -- "$word")); compopt -o filenames 2>/dev/null ;;
        serve:--log-format) COMPREPLY=($(compgen -W "auto console json" -- "$word")) ;;
        serve:--log-level) COMPREPLY=($(compgen -W "debug info warning error" -- "$word")) ;;
        status:--runtime-dir) COMPREPLY=($(compgen -d -- "$word")); compopt -o filenames 2>/dev/null ;;
        top:--runtime-dir) COMPREPLY=($(compgen -d -- "$word")); compopt -o filenames 2>/dev/null ;;
        health:--tenant) COMPREPLY=($(compgen -W "$(trtd completion tenants 2>/dev/null)" -- "$word")) ;;
        health:--runtime-dir) COMPREPLY=($(compgen -d -- "$word")); compopt -o filenames 2>/dev/null ;;
        drain:--runtime-dir) COMPREPLY=($(compgen -d -- "$word")); compopt -o filenames 2>/dev/null ;;
        resume:--runtime-dir) COMPREPLY=($(compgen -d -- "$word")); compopt -o filenames 2>/dev/null ;;
        restart:--runtime-dir) COMPREPLY=($(compgen -d -- "$word")); compopt -o filenames 2>/dev/null ;;
        fault:--runtime-dir) COMPREPLY=($(compgen -d -- "$word")); compopt -o filenames 2>/dev/null ;;
        reload:--runtime-dir) COMPREPLY=($(compgen -d -- "$word")); compopt -o filenames 2>/dev/null ;;
        infer:--save) COMPREPLY=($(compgen -f -- "$word")); compopt -o filenames 2>/dev/null ;;
        infer:--runtime-dir) COMPREPLY=($(compgen -d -- "$word")); compopt -o filenames 2>/dev/null ;;
        bench:--config) COMPREPLY=($(compgen -f -- "$word")); compopt -o filenames 2>/dev/null ;;
        bench:--runtime-dir) COMPREPLY=($(compgen -d -- "$word")); compopt -o filenames 2>/dev/null ;;
        config:--config) COMPREPLY=($(compgen -f -- "$word")); compopt -o filenames 2>/dev/null ;;
        doctor:--config) COMPREPLY=($(compgen -f -- "$word")); compopt -o filenames 2>/dev/null ;;
        demo:--gpu) COMPREPLY=($(compgen -d -- "$word")); compopt -o filenames 2>/dev/null ;;
        support-bundle:--output) COMPREPLY=($(compgen -f -- "$word")); compopt -o filenames 2>/dev/null ;;
        support-bundle:--log) COMPREPLY=($(compgen -f -- "$word")); compopt -o filenames 2>/dev/null ;;
        support-bundle:--config) COMPREPLY=($(compgen -f -- "$word")); compopt -o filenames 2>/dev/null ;;
        support-bundle:--runtime-dir) COMPREPLY=($(compgen -d -- "$word")); compopt -o filenames 2>/dev/null ;;
        esac
    elif [[ $word == -* ]]; then
        case $command in
        serve) COMPREPLY=($(compgen -W "--config --model --runtime-dir --log-format --log-level --help" -- "$word")) ;;
        status) COMPREPLY=($(compgen -W "--watch --wide --json --runtime-dir --help" -- "$word")) ;;
        top) COMPREPLY=($(compgen -W "--runtime-dir --help" -- "$word")) ;;
        health) COMPREPLY=($(compgen -W "--tenant --live --json --runtime-dir --help" -- "$word")) ;;
        drain) COMPREPLY=($(compgen -W "--all --timeout --json --runtime-dir --help" -- "$word")) ;;
        resume) COMPREPLY=($(compgen -W "--all --json --runtime-dir --help" -- "$word")) ;;
        restart) COMPREPLY=($(compgen -W "--timeout --json --runtime-dir --help" -- "$word")) ;;
        fault) COMPREPLY=($(compgen -W "--json --runtime-dir --help" -- "$word")) ;;
        reload) COMPREPLY=($(compgen -W "--timeout --json --runtime-dir --help" -- "$word")) ;;
        infer) COMPREPLY=($(compgen -W "--input --shape --version --output --save --timeout --runtime-dir --help" -- "$word")) ;;
        bench) COMPREPLY=($(compgen -W "--input --shape --version --bare --config --concurrency --seconds --requests --batch --warmup --timeout --json --runtime-dir --help" -- "$word")) ;;
        config) COMPREPLY=($(compgen -W "--config --origin --help" -- "$word")) ;;
        doctor) COMPREPLY=($(compgen -W "--config --wait-for-devices --json --help" -- "$word")) ;;
        demo) COMPREPLY=($(compgen -W "--seconds --gpu --help" -- "$word")) ;;
        support-bundle) COMPREPLY=($(compgen -W "--output --log --config --runtime-dir --help" -- "$word")) ;;
        completion) COMPREPLY=($(compgen -W "--help" -- "$word")) ;;
        version) COMPREPLY=($(compgen -W "--help" -- "$word")) ;;
        esac
    else
        case $command:$position in
        status:0) COMPREPLY=($(compgen -W "$(trtd completion tenants 2>/dev/null)" -- "$word")) ;;
        top:0) COMPREPLY=($(compgen -W "$(trtd completion tenants 2>/dev/null)" -- "$word")) ;;
        drain:0) COMPREPLY=($(compgen -W "$(trtd completion tenants 2>/dev/null)" -- "$word")) ;;
        resume:0) COMPREPLY=($(compgen -W "$(trtd completion tenants 2>/dev/null)" -- "$word")) ;;
        restart:0) COMPREPLY=($(compgen -W "$(trtd completion tenants 2>/dev/null)" -- "$word")) ;;
        fault:0) COMPREPLY=($(compgen -W "$(trtd completion tenants 2>/dev/null)" -- "$word")) ;;
        fault:1) COMPREPLY=($(compgen -W "illegal_address trap misaligned_access device_assert out_of_memory endless_kernel end_endless_kernel" -- "$word")) ;;
        infer:0) COMPREPLY=($(compgen -W "$(trtd completion tenants 2>/dev/null)" -- "$word")) ;;
        infer:1) COMPREPLY=($(compgen -W "$(trtd completion models "$tenant" 2>/dev/null)" -- "$word")) ;;
        bench:0) COMPREPLY=($(compgen -W "$(trtd completion tenants 2>/dev/null)" -- "$word")) ;;
        bench:1) COMPREPLY=($(compgen -W "$(trtd completion models "$tenant" 2>/dev/null)" -- "$word")) ;;
        config:0) COMPREPLY=($(compgen -W "check show" -- "$word")) ;;
        completion:0) COMPREPLY=($(compgen -W "bash zsh fish tenants models" -- "$word")) ;;
        completion:1) COMPREPLY=($(compgen -W "$(trtd completion tenants 2>/dev/null)" -- "$word")) ;;
        esac
    fi
}
complete -F _trtd trtd
