# imagend with Mesa's drivers and the default cascade inside. Runs as nobody, with a read-only root
# file system if wanted; /var/cache/imagend is the only place it writes to.
#
#   docker build -t imagend .
#   docker run --read-only --tmpfs /var/cache/imagend:uid=65534,gid=65534 -p 127.0.0.1:8080:8080 imagend
#
# A GPU: add --device /dev/dri (and its group); another model: -v DIR:/models/other and
# `imagend serve --listen 0.0.0.0:8080 --model /models/other`.
FROM debian:12-slim AS build
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
        --no-install-recommends gcc g++ meson ninja-build pkg-config glslc libvulkan-dev \
        libjansson-dev libpng-dev libsentencepiece-dev libunistring-dev libuv1-dev \
        libmicrohttpd-dev && \
    rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN meson setup --buildtype=release --strip /build . && ninja -C /build imagend && \
    strip -o /imagend /build/imagend

FROM debian:12-slim
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
        --no-install-recommends curl libvulkan1 mesa-vulkan-drivers libjansson4 libpng16-16 \
        libsentencepiece0 libunistring2 libuv1 libmicrohttpd12 && \
    rm -rf /var/lib/apt/lists/* && \
    install -d -o nobody -g nogroup /var/cache/imagend
COPY --from=build /imagend /usr/bin/imagend
COPY models /models
ENV XDG_CACHE_HOME=/var/cache/imagend
USER nobody
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["curl", "-fs", "http://127.0.0.1:8080/healthz"]
ENTRYPOINT ["imagend"]
CMD ["serve", "--listen", "0.0.0.0:8080", "--model", "/models/default"]
