import { defineConfig } from "vite";

// @grafana/ui asks for a compatibility package that its own react-router-dom already is.
export default defineConfig({
  base: "./",
  define: { "process.env.NODE_ENV": '"production"', global: "globalThis" },
  resolve: { alias: { "react-router-dom-v5-compat": "react-router-dom" } },
  build: { target: "es2022", sourcemap: false, minify: false, chunkSizeWarningLimit: 100000 },
});
