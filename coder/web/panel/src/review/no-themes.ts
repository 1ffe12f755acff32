/** In place of the many themes that come with the diff view, which would all be files of the panel: it has those of `themes.ts`. */
export const themes = { getTheme: () => undefined };
