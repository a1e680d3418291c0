# etcd: the demo's store, one member. Any etcd 3.4 or later serves in its place.
ARG BASE=debian:trixie-slim
FROM $BASE
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends etcd-server etcd-client \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log \
    && install -d -m 700 -o etcd -g etcd /var/lib/etcd
LABEL org.opencontainers.image.title="etcd" \
      org.opencontainers.image.description="etcd from Debian's packages, for the demo of docker-register" \
      org.opencontainers.image.licenses="Apache-2.0"
USER etcd
# The data should be in a volume; none is declared, so that no anonymous one is left behind.
ENTRYPOINT ["etcd", "--data-dir=/var/lib/etcd"]
