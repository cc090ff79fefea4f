# Made by scripts/manual from the code. Changes here are lost.

# Succeeds where the command is the first word and so many places are filled after it.
function __trtd_at --argument-names command position
    set --local words (commandline --tokenize --current-process --cut-at-cursor)
    test "$words[2]" = "$command"; and test (count (__trtd_words)) = $position
end

# The words after the command that are no flags and no values of flags.
function __trtd_words
    set --local words (commandline --tokenize --current-process --cut-at-cursor)
    set --local is_value no
    for word in $words[3..]
        if test $is_value = yes
            set is_value no
        else if contains -- "$words[2]:$word" serve:--config serve:--model serve:--runtime-dir serve:--log-format serve:--log-level status:--runtime-dir top:--runtime-dir health:--tenant health:--runtime-dir drain:--timeout drain:--runtime-dir resume:--runtime-dir restart:--timeout restart:--runtime-dir fault:--runtime-dir reload:--timeout reload:--runtime-dir infer:--input infer:--shape infer:--version infer:--output infer:--save infer:--timeout infer:--runtime-dir bench:--input bench:--shape bench:--version bench:--config bench:--concurrency bench:--seconds bench:--requests bench:--batch bench:--warmup bench:--timeout bench:--runtime-dir config:--config doctor:--config doctor:--wait-for-devices demo:--seconds demo:--gpu support-bundle:--output support-bundle:--log support-bundle:--config support-bundle:--runtime-dir
            set is_value yes
        else if not string match --quiet -- '-*' $word
            echo $word
        end
    end
end

function __trtd_tenant
    set --local words (__trtd_words)
    echo $words[1]
end

complete --command trtd --no-files
complete --command trtd --condition __fish_use_subcommand --arguments serve --description 'run the daemon in the foreground'
complete --command trtd --condition __fish_use_subcommand --arguments status --description 'show tenants, workers, queues and memory'
complete --command trtd --condition __fish_use_subcommand --arguments top --description 'show tenants, traffic and memory on a live screen'
complete --command trtd --condition __fish_use_subcommand --arguments health --description 'say whether the daemon, or one tenant, is ready; for probes without HTTP'
complete --command trtd --condition __fish_use_subcommand --arguments drain --description 'refuse new requests, finish the accepted ones, stop the workers'
complete --command trtd --condition __fish_use_subcommand --arguments resume --description 'let a drained or quarantined tenant serve again'
complete --command trtd --condition __fish_use_subcommand --arguments restart --description 'replace a tenant\'s workers one after the other; nothing is refused'
complete --command trtd --condition __fish_use_subcommand --arguments fault --description 'make a real fault in a tenant\'s workers, where debug.allow_faults permits it'
complete --command trtd --condition __fish_use_subcommand --arguments reload --description 'read the configuration again, apply the difference, and wait until the workers obey it'
complete --command trtd --condition __fish_use_subcommand --arguments infer --description 'send one request and print its answer'
complete --command trtd --condition __fish_use_subcommand --arguments bench --description 'measure throughput and latency of a model in a closed loop'
complete --command trtd --condition __fish_use_subcommand --arguments config --description 'check the configuration, or show what is in force'
complete --command trtd --condition __fish_use_subcommand --arguments doctor --description 'look at GPU, driver, TensorRT and configured plans, and say what to do'
complete --command trtd --condition __fish_use_subcommand --arguments demo --description 'show the daemon at work: three tenants, a killed worker, no lost request'
complete --command trtd --condition __fish_use_subcommand --arguments support-bundle --description 'collect configuration, status, faults, versions and log in one archive, without secrets'
complete --command trtd --condition __fish_use_subcommand --arguments completion --description 'print a shell\'s completion script, or the names that it completes'
complete --command trtd --condition __fish_use_subcommand --arguments version --description 'print the version'
complete --command trtd --condition '__fish_seen_subcommand_from serve' --long-option config --require-parameter --force-files --description 'read this file in place of /etc/trtd/trtd.toml'
complete --command trtd --condition '__fish_seen_subcommand_from serve' --long-option model --require-parameter --no-files --description 'serve this ONNX file to tenant `default`; needs no configuration'
complete --command trtd --condition '__fish_seen_subcommand_from serve' --long-option runtime-dir --require-parameter --no-files --arguments '(__fish_complete_directories)' --description 'directory of all sockets'
complete --command trtd --condition '__fish_seen_subcommand_from serve' --long-option log-format --require-parameter --no-files --arguments 'auto console json' --description 'how log lines look'
complete --command trtd --condition '__fish_seen_subcommand_from serve' --long-option log-level --require-parameter --no-files --arguments 'debug info warning error' --description 'least level written'
complete --command trtd --condition '__fish_seen_subcommand_from status' --long-option watch --description 'show it again and again until Ctrl-C'
complete --command trtd --condition '__fish_seen_subcommand_from status' --long-option wide --description 'all columns, however wide the terminal is'
complete --command trtd --condition '__fish_seen_subcommand_from status' --long-option json --description 'print JSON'
complete --command trtd --condition '__fish_seen_subcommand_from status' --long-option runtime-dir --require-parameter --no-files --arguments '(__fish_complete_directories)' --description 'directory of the daemon\'s sockets (default: as the daemon finds it)'
complete --command trtd --condition '__trtd_at status 0' --no-files --arguments '(trtd completion tenants 2>/dev/null)' --description 'show this tenant only'
complete --command trtd --condition '__fish_seen_subcommand_from top' --long-option runtime-dir --require-parameter --no-files --arguments '(__fish_complete_directories)' --description 'directory of the daemon\'s sockets (default: as the daemon finds it)'
complete --command trtd --condition '__trtd_at top 0' --no-files --arguments '(trtd completion tenants 2>/dev/null)' --description 'show this tenant only'
complete --command trtd --condition '__fish_seen_subcommand_from health' --long-option tenant --require-parameter --no-files --arguments '(trtd completion tenants 2>/dev/null)' --description 'of this tenant only'
complete --command trtd --condition '__fish_seen_subcommand_from health' --long-option live --description 'only whether the daemon answers'
complete --command trtd --condition '__fish_seen_subcommand_from health' --long-option json --description 'print JSON'
complete --command trtd --condition '__fish_seen_subcommand_from health' --long-option runtime-dir --require-parameter --no-files --arguments '(__fish_complete_directories)' --description 'directory of the daemon\'s sockets (default: as the daemon finds it)'
complete --command trtd --condition '__fish_seen_subcommand_from drain' --long-option all --description 'every tenant'
complete --command trtd --condition '__fish_seen_subcommand_from drain' --long-option timeout --require-parameter --no-files --description 'seconds to wait (default: daemon.drain_timeout_s)'
complete --command trtd --condition '__fish_seen_subcommand_from drain' --long-option json --description 'print JSON'
complete --command trtd --condition '__fish_seen_subcommand_from drain' --long-option runtime-dir --require-parameter --no-files --arguments '(__fish_complete_directories)' --description 'directory of the daemon\'s sockets (default: as the daemon finds it)'
complete --command trtd --condition '__trtd_at drain 0' --no-files --arguments '(trtd completion tenants 2>/dev/null)' --description 'name of the tenant'
complete --command trtd --condition '__fish_seen_subcommand_from resume' --long-option all --description 'every tenant'
complete --command trtd --condition '__fish_seen_subcommand_from resume' --long-option json --description 'print JSON'
complete --command trtd --condition '__fish_seen_subcommand_from resume' --long-option runtime-dir --require-parameter --no-files --arguments '(__fish_complete_directories)' --description 'directory of the daemon\'s sockets (default: as the daemon finds it)'
complete --command trtd --condition '__trtd_at resume 0' --no-files --arguments '(trtd completion tenants 2>/dev/null)' --description 'name of the tenant'
complete --command trtd --condition '__fish_seen_subcommand_from restart' --long-option timeout --require-parameter --no-files --description 'seconds to wait (default: 150 for each worker of a tenant)'
complete --command trtd --condition '__fish_seen_subcommand_from restart' --long-option json --description 'print JSON'
complete --command trtd --condition '__fish_seen_subcommand_from restart' --long-option runtime-dir --require-parameter --no-files --arguments '(__fish_complete_directories)' --description 'directory of the daemon\'s sockets (default: as the daemon finds it)'
complete --command trtd --condition '__trtd_at restart 0' --no-files --arguments '(trtd completion tenants 2>/dev/null)' --description 'name of the tenant'
complete --command trtd --condition '__fish_seen_subcommand_from fault' --long-option json --description 'print JSON'
complete --command trtd --condition '__fish_seen_subcommand_from fault' --long-option runtime-dir --require-parameter --no-files --arguments '(__fish_complete_directories)' --description 'directory of the daemon\'s sockets (default: as the daemon finds it)'
complete --command trtd --condition '__trtd_at fault 0' --no-files --arguments '(trtd completion tenants 2>/dev/null)' --description 'name of the tenant'
complete --command trtd --condition '__trtd_at fault 1' --no-files --arguments 'illegal_address trap misaligned_access device_assert out_of_memory endless_kernel end_endless_kernel' --description 'illegal_address, trap, misaligned_access, device_assert, out_of_memory, endless_kernel, end_endless_kernel'
complete --command trtd --condition '__fish_seen_subcommand_from reload' --long-option timeout --require-parameter --no-files --description 'seconds to wait (default: 150 for each worker of a tenant)'
complete --command trtd --condition '__fish_seen_subcommand_from reload' --long-option json --description 'print JSON'
complete --command trtd --condition '__fish_seen_subcommand_from reload' --long-option runtime-dir --require-parameter --no-files --arguments '(__fish_complete_directories)' --description 'directory of the daemon\'s sockets (default: as the daemon finds it)'
complete --command trtd --condition '__fish_seen_subcommand_from infer' --long-option input --require-parameter --no-files --description 'FILE.npy, random, zeros or ones, for one input; inputs that are not given are random'
complete --command trtd --condition '__fish_seen_subcommand_from infer' --long-option shape --require-parameter --no-files --description 'shape of a generated input, as x=1,3,224,224'
complete --command trtd --condition '__fish_seen_subcommand_from infer' --long-option version --require-parameter --no-files --description 'of the model (default: the newest)'
complete --command trtd --condition '__fish_seen_subcommand_from infer' --long-option output --require-parameter --no-files --description 'this output only; may be given again (default: all)'
complete --command trtd --condition '__fish_seen_subcommand_from infer' --long-option save --require-parameter --force-files --description 'write the outputs to this file'
complete --command trtd --condition '__fish_seen_subcommand_from infer' --long-option timeout --require-parameter --no-files --description 'seconds to wait (default: 30)'
complete --command trtd --condition '__fish_seen_subcommand_from infer' --long-option runtime-dir --require-parameter --no-files --arguments '(__fish_complete_directories)' --description 'directory of the daemon\'s sockets (default: as the daemon finds it)'
complete --command trtd --condition '__trtd_at infer 0' --no-files --arguments '(trtd completion tenants 2>/dev/null)' --description 'name of the tenant'
complete --command trtd --condition '__trtd_at infer 1' --no-files --arguments '(trtd completion models (__trtd_tenant) 2>/dev/null)' --description 'name of the model'
complete --command trtd --condition '__fish_seen_subcommand_from bench' --long-option input --require-parameter --no-files --description 'FILE.npy, random, zeros or ones, for one input; inputs that are not given are random'
complete --command trtd --condition '__fish_seen_subcommand_from bench' --long-option shape --require-parameter --no-files --description 'shape of a generated input, as x=1,3,224,224'
complete --command trtd --condition '__fish_seen_subcommand_from bench' --long-option version --require-parameter --no-files --description 'of the model (default: the newest)'
complete --command trtd --condition '__fish_seen_subcommand_from bench' --long-option bare --description 'without the daemon: the model in this process, one caller for each slot of the tenant'
complete --command trtd --condition '__fish_seen_subcommand_from bench' --long-option config --require-parameter --force-files --description 'read this file in place of /etc/trtd/trtd.toml'
complete --command trtd --condition '__fish_seen_subcommand_from bench' --long-option concurrency --require-parameter --no-files --description 'requests under way (default: 8)'
complete --command trtd --condition '__fish_seen_subcommand_from bench' --long-option seconds --require-parameter --no-files --description 'how long to measure (default: 5)'
complete --command trtd --condition '__fish_seen_subcommand_from bench' --long-option requests --require-parameter --no-files --description 'measure so many requests instead'
complete --command trtd --condition '__fish_seen_subcommand_from bench' --long-option batch --require-parameter --no-files --description 'items in each request (default: 1)'
complete --command trtd --condition '__fish_seen_subcommand_from bench' --long-option warmup --require-parameter --no-files --description 'seconds before measuring (default: 0.5)'
complete --command trtd --condition '__fish_seen_subcommand_from bench' --long-option timeout --require-parameter --no-files --description 'seconds per request (default: 30)'
complete --command trtd --condition '__fish_seen_subcommand_from bench' --long-option json --description 'print JSON'
complete --command trtd --condition '__fish_seen_subcommand_from bench' --long-option runtime-dir --require-parameter --no-files --arguments '(__fish_complete_directories)' --description 'directory of the daemon\'s sockets (default: as the daemon finds it)'
complete --command trtd --condition '__trtd_at bench 0' --no-files --arguments '(trtd completion tenants 2>/dev/null)' --description 'name of the tenant'
complete --command trtd --condition '__trtd_at bench 1' --no-files --arguments '(trtd completion models (__trtd_tenant) 2>/dev/null)' --description 'name of the model'
complete --command trtd --condition '__fish_seen_subcommand_from config' --long-option config --require-parameter --force-files --description 'read this file in place of /etc/trtd/trtd.toml'
complete --command trtd --condition '__fish_seen_subcommand_from config' --long-option origin --description 'with show: where each value comes from'
complete --command trtd --condition '__trtd_at config 0' --no-files --arguments 'check show' --description 'find every problem, or print every value'
complete --command trtd --condition '__fish_seen_subcommand_from doctor' --long-option config --require-parameter --force-files --description 'read this file in place of /etc/trtd/trtd.toml'
complete --command trtd --condition '__fish_seen_subcommand_from doctor' --long-option wait-for-devices --require-parameter --no-files --description 'only wait, for at most S seconds, until the device nodes that tenants need are there'
complete --command trtd --condition '__fish_seen_subcommand_from doctor' --long-option json --description 'print JSON'
complete --command trtd --condition '__fish_seen_subcommand_from demo' --long-option seconds --require-parameter --no-files --description 'length of the load (default: 3)'
complete --command trtd --condition '__fish_seen_subcommand_from demo' --long-option gpu --require-parameter --no-files --arguments '(__fish_complete_directories)' --description 'TensorRT plans on this host\'s GPU instead: DIR has plans/ and references/ (default: $TRTD_GPU_ASSETS, else here)'
complete --command trtd --condition '__fish_seen_subcommand_from support-bundle' --long-option output --require-parameter --force-files --description 'where to (default: trtd-support-TIME.tar.gz, here)'
complete --command trtd --condition '__fish_seen_subcommand_from support-bundle' --long-option log --require-parameter --force-files --description 'log of the daemon (default: the journal)'
complete --command trtd --condition '__fish_seen_subcommand_from support-bundle' --long-option config --require-parameter --force-files --description 'read this file in place of /etc/trtd/trtd.toml'
complete --command trtd --condition '__fish_seen_subcommand_from support-bundle' --long-option runtime-dir --require-parameter --no-files --arguments '(__fish_complete_directories)' --description 'directory of the daemon\'s sockets (default: as the daemon finds it)'
complete --command trtd --condition '__trtd_at completion 0' --no-files --arguments 'bash zsh fish tenants models' --description 'a shell, tenants, or models of a tenant'
complete --command trtd --condition '__trtd_at completion 1' --no-files --arguments '(trtd completion tenants 2>/dev/null)' --description 'name of the tenant, with models'
