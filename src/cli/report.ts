/** `troupe report RUN…`: runs, or a whole study, as one HTML file that opens anywhere. */
import { dirname, join } from 'node:path';
import type { CommandModule } from 'yargs';
import { TroupeError } from '../config/errors.js';
import { onFile, writeFileWhole } from '../config/files.js';
import { makeFolder } from '../config/make-folder.js';
import { type Report, report, standalone } from '../report/page.js';
import { readRun } from '../report/run-data.js';
import { findRuns } from '../runs/find-runs.js';

interface Arguments {
  runs: string[];
  output: string | undefined;
  pictures: string | undefined;
}

export const reportCommand: CommandModule<object, Arguments> = {
  builder: (yargs) =>
    yargs
      .positional('runs', {
        type: 'string',
        array: true,
        demandOption: true,
        describe: 'Run directories, or folders of studies',
      })
      .option('output', {
        alias: 'o',
        type: 'string',
        describe: 'File; default: report.html in the first of the folders',
      })
      .option('pictures', { type: 'string', describe: 'Folder that gets every picture as an SVG file' }),
  handler: ({ runs, output, pictures }) => {
    const found = findRuns(runs);
    if (found.length === 0) {
      throw new TroupeError('has no runs yet.', { where: runs.join(', '), hint: 'Start the study first.' });
    }
    const read = found.map((folder) => readRun(folder));
    for (const message of read.flatMap(({ leftOut }) => leftOut)) console.error(message);
    const made = report(read);
    const file = output ?? join(runs[0] as string, 'report.html');
    writeFileWhole(file, made.html);
    console.log(`${file}: ${found.length} ${found.length === 1 ? 'run' : 'runs'}`);
    if (pictures !== undefined) writePictures(made, pictures);
  },
};

function writePictures({ pictures }: Report, folder: string): void {
  for (const [name, figure] of pictures) {
    const path = join(folder, `${name}.svg`);
    onFile(folder, () => makeFolder(dirname(path)));
    writeFileWhole(path, standalone(figure));
  }
  console.log(`${folder}: ${pictures.size} pictures`);
}
