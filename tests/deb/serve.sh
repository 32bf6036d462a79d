#!/bin/sh
# What an administrator does with the service, on a system booted with systemd. deb.sh copies it there;
# the last line of its log is "served" on success.
exec >/var/log/try.log 2>&1
trap "systemctl poweroff" EXIT
set -eux
[ "$(systemctl is-enabled imagend || true)" = disabled ]
[ "$(systemctl is-active imagend || true)" = inactive ]
systemctl enable --now imagend
set +x
for _ in $(seq 600); do
    curl -fs -o /dev/null http://127.0.0.1:8080/readyz && break
    systemctl is-active -q imagend || break
    sleep 0.5
done
set -x
curl -fsS --max-time 300 http://127.0.0.1:8080/v1/images/generations -H "Accept: image/png" \
    -H "Content-Type: application/json" -o /var/log/try.png \
    -d "{\"prompt\": \"a red sphere\", \"size\": \"64x64\", \"steps\": [2], \"seed\": 1}"
head -c 4 /var/log/try.png | grep -q PNG
systemctl reload imagend
# A restart comes back to the jobs that it kept.
systemctl restart imagend
systemctl show -p User -p ActiveState -p Result imagend
systemctl show imagend | grep -qx User=imagend
test -s /var/lib/imagend/jobs.sqlite
test -n "$(find /var/cache/imagend -type f | head -n 1)"
test -z "$(find /var/lib/imagend /var/cache/imagend ! -user imagend)"
systemctl stop imagend
systemctl show imagend | grep -qx Result=success
systemctl disable imagend
echo served
