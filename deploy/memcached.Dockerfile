# memcached: the last tier of `make demo-edge`.
ARG BASE=debian:trixie-slim
FROM $BASE
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends memcached \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log
LABEL org.opencontainers.image.title="memcached" \
      org.opencontainers.image.description="memcached from Debian's packages, for the demo of docker-register's edge" \
      org.opencontainers.image.licenses="BSD-3-Clause"
EXPOSE 11211/tcp
USER memcache
ENTRYPOINT ["memcached", "-l", "0.0.0.0", "-m", "16"]
