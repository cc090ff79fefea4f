"""trtd under a host other than systemd: what supervisord loads and runs. Nothing else imports `supervisor`."""
