# docker-register: watches Docker and registers what runs. Build context: target/image (see build-images.sh).
ARG BASE=debian:trixie-slim
FROM $BASE AS parts
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY rootfs.sh /
# /run/register is for the control socket; open to the user that register drops to as well.
RUN sh /rootfs.sh && mkdir -m 1777 /rootfs/run/register

# No shell and no package manager: only register, and what it is linked with.
FROM scratch
COPY --from=parts /rootfs /
ARG VERSION=dev
LABEL org.opencontainers.image.title="docker-register" \
      org.opencontainers.image.description="Registers the published ports of healthy Docker containers in etcd" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      register.ignore="true"
ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin
COPY register /usr/local/bin/register
# Starts as root to learn the group of Docker's socket, then goes on as this user; empty, it stays root.
ENV REGISTER_USER=nobody
# Rare probes on purpose: each one is three events on the Docker host.
HEALTHCHECK --interval=15s --timeout=3s --start-period=10s CMD ["register", "status", "--ready"]
ENTRYPOINT ["register"]
CMD ["run"]
