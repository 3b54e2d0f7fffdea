import com.amazonaws.auth.AWSCredentialsProvider;
import com.amazonaws.auth.AWSStaticCredentialsProvider;
import com.amazonaws.auth.BasicAWSCredentials;
import com.amazonaws.client.builder.AwsClientBuilder.EndpointConfiguration;
import com.amazonaws.kinesisvideo.parser.ebml.InputStreamParserByteSource;
import com.amazonaws.kinesisvideo.parser.mkv.MkvElement;
import com.amazonaws.kinesisvideo.parser.mkv.StreamingMkvReader;
import com.amazonaws.kinesisvideo.parser.ebml.MkvTypeInfos;
import com.amazonaws.kinesisvideo.parser.utilities.FragmentMetadata;
import com.amazonaws.kinesisvideo.parser.utilities.FragmentMetadataVisitor;
import com.amazonaws.services.kinesisvideo.AmazonKinesisVideo;
import com.amazonaws.services.kinesisvideo.AmazonKinesisVideoArchivedMedia;
import com.amazonaws.services.kinesisvideo.AmazonKinesisVideoArchivedMediaClient;
import com.amazonaws.services.kinesisvideo.AmazonKinesisVideoClientBuilder;
import com.amazonaws.services.kinesisvideo.AmazonKinesisVideoMedia;
import com.amazonaws.services.kinesisvideo.AmazonKinesisVideoMediaClientBuilder;
import com.amazonaws.services.kinesisvideo.model.DescribeStreamRequest;
import com.amazonaws.services.kinesisvideo.model.Fragment;
import com.amazonaws.services.kinesisvideo.model.FragmentSelector;
import com.amazonaws.services.kinesisvideo.model.GetDataEndpointRequest;
import com.amazonaws.services.kinesisvideo.model.GetMediaForFragmentListRequest;
import com.amazonaws.services.kinesisvideo.model.GetMediaRequest;
import com.amazonaws.services.kinesisvideo.model.ListFragmentsRequest;
import com.amazonaws.services.kinesisvideo.model.ListFragmentsResult;
import com.amazonaws.services.kinesisvideo.model.ResourceNotFoundException;
import com.amazonaws.services.kinesisvideo.model.StartSelector;
import com.amazonaws.services.kinesisvideo.model.TimestampRange;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.Date;
import java.util.List;
import java.util.Optional;

/**
 * ReadMedia ENDPOINT ID SECRET STREAM START_MS: reads a stream with the parser library. A line for each fragment: what it was read by,
 * its number, the producer's time of it, and how many frames.
 */
public final class ReadMedia {
    private static final String REGION = "us-west-2";

    public static void main(String[] args) throws Exception {
        AWSCredentialsProvider credentials =
            new AWSStaticCredentialsProvider(new BasicAWSCredentials(args[1], args[2]));
        String stream = args[3];
        AmazonKinesisVideo control = AmazonKinesisVideoClientBuilder.standard()
            .withCredentials(credentials)
            .withEndpointConfiguration(new EndpointConfiguration(args[0], REGION))
            .build();
        try {
            control.describeStream(new DescribeStreamRequest().withStreamName("nowhere"));
            throw new AssertionError("a stream that is not there");
        } catch (ResourceNotFoundException expected) {
            System.out.println("ERROR " + expected.getStatusCode() + " " + expected.getErrorCode());
        }
        String data = control.getDataEndpoint(
            new GetDataEndpointRequest().withStreamName(stream).withAPIName("LIST_FRAGMENTS")).getDataEndpoint();
        AmazonKinesisVideoArchivedMedia archived = AmazonKinesisVideoArchivedMediaClient.builder()
            .withCredentials(credentials)
            .withEndpointConfiguration(new EndpointConfiguration(data, REGION))
            .build();
        Date start = new Date(Long.parseLong(args[4]));
        FragmentSelector all = new FragmentSelector()
            .withFragmentSelectorType("PRODUCER_TIMESTAMP")
            .withTimestampRange(new TimestampRange()
                .withStartTimestamp(start)
                .withEndTimestamp(new Date(start.getTime() + 3600_000)));
        List<String> numbers = new ArrayList<>();
        ListFragmentsRequest page = new ListFragmentsRequest().withStreamName(stream).withMaxResults(2L);
        ListFragmentsResult found = archived.listFragments(page.withFragmentSelector(all));
        while (true) {
            for (Fragment fragment : found.getFragments()) {
                numbers.add(fragment.getFragmentNumber());
            }
            if (found.getNextToken() == null) {
                break;
            }
            found = archived.listFragments(
                new ListFragmentsRequest().withStreamName(stream).withNextToken(found.getNextToken()));
        }
        AmazonKinesisVideoMedia media = AmazonKinesisVideoMediaClientBuilder.standard()
            .withCredentials(credentials)
            .withEndpointConfiguration(new EndpointConfiguration(data, REGION))
            .build();
        StartSelector earliest = new StartSelector().withStartSelectorType("EARLIEST");
        read("GET", numbers.get(numbers.size() - 1), media.getMedia(
            new GetMediaRequest().withStreamName(stream).withStartSelector(earliest)).getPayload());
        read("LIST", null, archived.getMediaForFragmentList(
            new GetMediaForFragmentListRequest().withStreamName(stream).withFragments(numbers)).getPayload());
        System.exit(0);
    }

    /** Reads to the end, or to where the token of the last fragment came. */
    private static void read(String what, String last, InputStream payload) throws Exception {
        StreamingMkvReader reader = StreamingMkvReader.createDefault(new InputStreamParserByteSource(payload));
        FragmentMetadataVisitor visitor = FragmentMetadataVisitor.create();
        FragmentMetadata of = null;
        int frames = 0;
        while (reader.mightHaveNext()) {
            Optional<MkvElement> element = reader.nextIfAvailable();
            if (!element.isPresent()) {
                continue;
            }
            element.get().accept(visitor);
            if (!MkvTypeInfos.SIMPLEBLOCK.equals(element.get().getElementMetaData().getTypeInfo())) {
                if (last != null && visitor.getContinuationToken().filter(last::equals).isPresent()) {
                    break;
                }
                continue;
            }
            FragmentMetadata current = visitor.getCurrentFragmentMetadata().get();
            if (of != null && !of.getFragmentNumberString().equals(current.getFragmentNumberString())) {
                say(what, of, frames);
                frames = 0;
            }
            of = current;
            frames++;
        }
        say(what, of, frames);
    }

    private static void say(String what, FragmentMetadata fragment, int frames) {
        System.out.println(what + " " + fragment.getFragmentNumberString() + " "
            + fragment.getProducerSideTimestampMillis() + " " + frames + " " + fragment.isCompleteFragment());
    }
}
