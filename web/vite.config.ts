import { defineConfig } from "vite";

// Names of files carry a hash of what is in them, so the server lets browsers keep them for good. Nothing is inlined: the
// policy of the pages allows no inline scripts or styles.
export default defineConfig({
  base: "/console/",
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    // `scripts/web` empties it: the file that keeps the folder in the repository stays.
    emptyOutDir: false,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 700,
  },
  server: { proxy: { "/v1": "http://127.0.0.1:8080" } },
});
