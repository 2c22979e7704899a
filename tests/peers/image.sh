#!/usr/bin/env bash
# An image laid out as the official apache/rocketmq is, for where no registry can be asked: the published jars, a Java runtime of
# this host's JDK, and start scripts of our own that take the official command lines. Prints its reference.
#   image.sh [TAG]     apache/rocketmq:TAG (default VERSION-test); does nothing when the daemon has it
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${RMQ_PEER_HOME:-$HOME/.cache/rmq-peers/apache}
"$here/install.sh" -q >&2
version=$(cat "$home/lib/.version")
image=apache/rocketmq:${1:-$version-test}
if docker image inspect "$image" >/dev/null 2>&1; then echo "$image"; exit 0; fi

work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
root=$work/root rocketmq=home/rocketmq/rocketmq-$version
mkdir -p "$root"/{bin,etc,tmp,"$rocketmq"/{bin,conf}}; chmod 1777 "$root/tmp"
printf 'root:x:0:0:root:/root:/bin/sh\nrocketmq:x:3000:3000::/home/rocketmq:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nrocketmq:x:3000:\n' >"$root/etc/group"

# A JDK with its modules can cut a runtime.
jdk=
for candidate in "${JAVA_HOME:-}" "$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")" /usr/lib/jvm/*; do
    if [ -n "$candidate" ] && [ -x "$candidate/bin/jlink" ] && [ -d "$candidate/jmods" ]; then jdk=$candidate; break; fi
done
[ -n "$jdk" ] || { echo "image.sh: no JDK here has jlink and its modules" >&2; exit 1; }
"$jdk/bin/jlink" --add-modules java.se,jdk.unsupported,jdk.management,jdk.crypto.ec,jdk.net,jdk.zipfs \
    --strip-debug --no-man-pages --no-header-files --output "$root/opt-java" >&2
mkdir -p "$root/opt"; mv "$root/opt-java" "$root/opt/java"
cp -L "$(command -v dash || command -v sh)" "$root/bin/sh"
# The shared libraries of all of it, where the loader looks for them, and those that RocksDB in a jar asks for.
{
    find "$root/opt/java" "$root/bin" -type f \( -name '*.so' -o -perm -u+x \) -print0 |
        LD_LIBRARY_PATH=$root/opt/java/lib:$root/opt/java/lib/server xargs -0 -n1 ldd 2>/dev/null | grep -oE '/[^ ]+\.so[^ ]*' || true
    ldconfig -p | grep -E '^\s*(libpthread\.so\.0|libdl\.so\.2|librt\.so\.1|libm\.so\.6|libstdc\+\+\.so\.6|libgcc_s\.so\.1) ' | grep -oE '/[^ ]+$'
} | grep -v "^$work" | sort -u | while read -r library; do
    mkdir -p "$root$(dirname "$library")"; cp -Ln "$library" "$root$library"
done

cp -r "$home/lib" "$root/$rocketmq/lib"
# As the official ones: a script that starts a script that starts java, with sizes for a large machine unless JAVA_OPT_EXT,
# which comes last, says others.
for part in "namesrv namesrv.NamesrvStartup runserver -Xms4g -Xmx4g -Xmn2g -XX:MetaspaceSize=128m" \
    "broker broker.BrokerStartup runbroker -Xms8g -Xmx8g -XX:MaxDirectMemorySize=15g -XX:+AlwaysPreTouch"; do
    read -r name class run sizes <<<"$part"
    cat >"$root/$rocketmq/bin/mq$name" <<TXT
#!/bin/sh
sh "\$ROCKETMQ_HOME/bin/$run.sh" -Drmq.logback.configurationFile=rmq.$name.logback.xml org.apache.rocketmq.$class "\$@"
TXT
    cat >"$root/$rocketmq/bin/$run.sh" <<TXT
#!/bin/sh
JAVA_OPT="-server $sizes -XX:+UseG1GC \$JAVA_OPT_EXT"
"\$JAVA_HOME/bin/java" \$JAVA_OPT -cp ".:\$ROCKETMQ_HOME/conf:\$ROCKETMQ_HOME/lib/*" "\$@"
TXT
done
chmod 755 "$root/$rocketmq/bin"/*

# The home is the user's, everything else root's.
tar -C "$root" --owner=0 --group=0 --exclude=./home -cf "$work/root.tar" .
tar -C "$root" --owner=3000 --group=3000 -rf "$work/root.tar" ./home
docker import --change "ENV ROCKETMQ_HOME=/$rocketmq" --change 'ENV JAVA_HOME=/opt/java' --change 'ENV PATH=/bin:/opt/java/bin' \
    --change "WORKDIR /$rocketmq/bin" --change 'USER rocketmq' --change 'EXPOSE 9876 10909 10911 10912' "$work/root.tar" "$image" >/dev/null
echo "$image"
