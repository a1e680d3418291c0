# publisher: a program that registers itself, with no Docker socket at hand; the demo's whoami stands for yours.
# Build context: target/image (see build-images.sh). In an image of your own: copy register into it, keep the entrypoint,
# and let CMD be your program.
ARG BASE=debian:trixie-slim
FROM $BASE
ARG VERSION=dev
LABEL org.opencontainers.image.title="publisher" \
      org.opencontainers.image.description="Runs a program and keeps it registered in etcd while it is healthy" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      register.ignore="true"
COPY register whoami /usr/local/bin/
# ETCD_HOST is for whoever runs it; HOST or DISCOVERABLE_URL where the container's own address is not what others reach.
ENV REGISTER_SERVICE=whoami \
    REGISTER_CHECK=/ \
    REGISTER_MODE=http \
    PORT=80
EXPOSE 80
USER nobody
ENTRYPOINT ["register", "exec", "--"]
CMD ["whoami"]
