# docker-discover: HAProxy, kept equal to the registry. Build context: target/image (see build-images.sh).
ARG BASE=debian:trixie-slim
FROM $BASE AS parts
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates haproxy \
    && rm -rf /var/lib/apt/lists/*
COPY rootfs.sh /
# Files that outlive a restart, and sockets that need not; both belong to root, HAProxy itself runs as haproxy.
RUN sh /rootfs.sh /usr/sbin/haproxy && mkdir -p -m 755 /rootfs/var/lib/discover /rootfs/run/discover

# No shell and no package manager: only HAProxy, its libraries, and discover.
FROM scratch
COPY --from=parts /rootfs /
ARG VERSION=dev
LABEL org.opencontainers.image.title="docker-discover" \
      org.opencontainers.image.description="HAProxy that follows the services registered in etcd, without dropped requests" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      register.ignore="true"
ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin
COPY discover /usr/local/bin/discover
EXPOSE 1936
HEALTHCHECK --interval=15s --timeout=3s --start-period=10s CMD ["discover", "status", "--ready"]
# Capabilities that suffice: NET_BIND_SERVICE, SETUID, SETGID, and KILL to signal workers of another user.
ENTRYPOINT ["discover"]
CMD ["supervise"]
