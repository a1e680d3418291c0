# host: a Debian machine with systemd and what install.md has on its hosts, for the tests of the packages. The packages themselves
# are installed by the test.
ARG BASE=debian:trixie-slim
FROM $BASE
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        systemd systemd-sysv ca-certificates curl etcd-client etcd-server haproxy openssl procps \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log \
    && rm -f /etc/systemd/system/*.wants/etcd.service /etc/systemd/system/*.wants/haproxy.service
LABEL org.opencontainers.image.title="host" \
      org.opencontainers.image.description="A machine with systemd, for the tests of docker-register's packages"
# The control groups of old kernels are allowed; journald's lines go to `docker logs`, too.
ENV container=docker SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1
STOPSIGNAL SIGRTMIN+3
CMD ["/sbin/init"]
