// The board that fits a model's codec. A board has load(problem), problem, names, show(frame, chosen), mark(field).

import { GraphBoard } from "./graph.js";
import { LogicBoard } from "./logic.js";
import { PlainBoard } from "./plain.js";
import { StoryBoard } from "./story.js";
import { TensorsBoard } from "./tensors.js";

export function openBoard(element, model, hooks) {
  element.replaceChildren();
  const needed = model.schema?.properties ?? {};
  if ("edges" in needed) return new GraphBoard(element, hooks);
  if ("expression" in needed) return new LogicBoard(element, hooks);
  if ("facts" in needed)
    return new StoryBoard(element, { ...hooks, words: Object.keys(model.codec.vocabulary ?? {}).length > 0 });
  if ("tensors" in needed) return new TensorsBoard(element, { ...hooks, model });
  return new PlainBoard(element, hooks);
}
